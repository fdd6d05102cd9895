// Drives an identity service with each identity method of matrix-js-sdk. Started
// by TestInterop (`make interop`), which runs the service, a homeserver that
// forwards as Synapse does, and the mailbox and telephone behind /interop.
import assert from "node:assert/strict";
import { AutoDiscovery, createClient, SERVICE_TYPES } from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.disableAll();

const { HOMESERVER, SERVER_NAME, IDENTITY } = process.env;
const ID_SERVER = new URL(IDENTITY).host;
const SECRET = "monkeys_are_GREAT";

const step = async (name, run) => {
    const began = performance.now();
    const result = await run();
    console.log(`ok   ${name} (${Math.round(performance.now() - began)} ms)`);
    return result;
};

// inbox returns the text that was last sent to somebody.
const inbox = async (to) => (await (await fetch(`${HOMESERVER}/interop/sent?to=${encodeURIComponent(to)}`)).json()).text;
const link = (text) => text.match(/https?:\/\/\S+/)[0];
const code = (text) => text.match(/\b\d{6}\b/)[0];

// follow opens a mailed link as a person does, and presses the button if there is one.
const follow = async (url) => {
    let page = await fetch(url);
    let html = await page.text();
    const action = html.match(/<form[^>]*action="([^"]*)"/);
    if (action) {
        const body = new URLSearchParams([...html.matchAll(/name="([^"]*)" value="([^"]*)"/g)].map((m) => [m[1], m[2]]));
        page = await fetch(new URL(action[1], url), { method: "POST", body });
        html = await page.text();
    }
    assert.equal(page.status, 200, html);
    return html;
};

// user returns a client of a user, registered with the identity service.
const user = async (name) => {
    const session = { token: "" };
    const client = createClient({
        baseUrl: HOMESERVER,
        idBaseUrl: IDENTITY,
        userId: `@${name}:${SERVER_NAME}`,
        accessToken: name,
        identityServer: { getAccessToken: async () => session.token },
    });
    const registered = await step(`registerWithIdentityServer ${name}`, async () =>
        client.registerWithIdentityServer(await client.getOpenIdToken()),
    );
    session.token = registered.token;
    assert.equal(registered.access_token, registered.token);
    await step(`getTerms, agreeToTerms ${name}`, async () => {
        await assert.rejects(client.getIdentityAccount(session.token), { errcode: "M_TERMS_NOT_SIGNED" });
        const { policies } = await client.getTerms(SERVICE_TYPES.IS, IDENTITY);
        await client.agreeToTerms(SERVICE_TYPES.IS, IDENTITY, session.token, [policies.privacy.en.url]);
    });
    return { client, session, id: client.getUserId() };
};

await step("AutoDiscovery", async () => {
    const found = await AutoDiscovery.fromDiscoveryConfig({
        "m.homeserver": { base_url: HOMESERVER },
        "m.identity_server": { base_url: IDENTITY },
    });
    assert.deepEqual(found["m.identity_server"], { state: "SUCCESS", error: null, base_url: IDENTITY });
});

const alice = await user("alice");
const { client } = alice;
const token = alice.session.token;

await step("getIdentityServerUrl, setIdentityServerUrl", async () => {
    assert.equal(client.getIdentityServerUrl(true), ID_SERVER);
    client.setIdentityServerUrl(IDENTITY);
});
await step("getIdentityAccount", async () => {
    assert.deepEqual(await client.getIdentityAccount(token), { user_id: alice.id });
    await assert.rejects(client.getIdentityAccount("wrong"), { errcode: "M_UNAUTHORIZED", httpStatus: 401 });
});

const email = await step("requestEmailToken, and its link", async () => {
    const { sid } = await client.requestEmailToken("Alice@Example.com", SECRET, 1, undefined, token);
    await assert.rejects(
        client.bindThreePid({ sid, client_secret: SECRET, id_server: ID_SERVER, id_access_token: token }),
        { errcode: "M_SESSION_NOT_VALIDATED" },
    );
    await follow(link(await inbox("alice@example.com")));
    return sid;
});
await step("bindThreePid", async () => {
    await client.bindThreePid({ sid: email, client_secret: SECRET, id_server: ID_SERVER, id_access_token: token });
});

const phone = await step("requestMsisdnToken", () => client.requestMsisdnToken("GB", "07700 900001", SECRET, 1, undefined, token));
await step("submitMsisdnToken", async () => {
    assert.equal(phone.msisdn, "447700900001");
    await assert.rejects(client.submitMsisdnToken(phone.sid, SECRET, "wrong", token), { errcode: "M_TOKEN_INCORRECT" });
    const text = await inbox(phone.msisdn);
    assert.deepEqual(await client.submitMsisdnToken(phone.sid, SECRET, code(text), token), { success: true });
    await client.bindThreePid({ sid: phone.sid, client_secret: SECRET, id_server: ID_SERVER, id_access_token: token });
});

await step("requestAdd3pidMsisdnToken, submitMsisdnTokenOtherUrl, addThreePidOnly", async () => {
    const asked = await client.requestAdd3pidMsisdnToken("gb", "07700 900002", SECRET, 1);
    await client.submitMsisdnTokenOtherUrl(asked.submit_url, asked.sid, SECRET, code(await inbox("447700900002")));
    await client.addThreePidOnly({ sid: asked.sid, client_secret: SECRET });
    const { threepids } = await client.getThreePids();
    assert.ok(threepids.some((t) => t.medium === "msisdn" && t.address === "447700900002"));
});

await step("getIdentityHashDetails", async () => {
    const { algorithms, lookup_pepper } = await client.getIdentityHashDetails(token);
    assert.ok(algorithms.includes("sha256") && lookup_pepper.length > 0);
});
const found = (address) => client.lookupThreePid("email", address, token);
await step("identityHashedLookup", async () => {
    const mappings = await client.identityHashedLookup([["alice@example.com", "email"], ["447700900001", "msisdn"], ["nobody@example.com", "email"]], token);
    assert.deepEqual(mappings, [
        { address: "alice@example.com", mxid: alice.id },
        { address: "447700900001", mxid: alice.id },
    ]);
});
await step("lookupThreePid", async () => {
    assert.equal((await found("Alice@example.com")).mxid, alice.id);
    assert.deepEqual(await found("nobody@example.com"), {});
});
await step("bulkLookupThreePids", async () => {
    const { threepids } = await client.bulkLookupThreePids([["email", "alice@example.com"], ["email", "nobody@example.com"]], token);
    assert.deepEqual(threepids, [["email", "alice@example.com", alice.id]]);
});

const room = "!tea:" + SERVER_NAME;
const bob = await user("bob");
await step("inviteByEmail of somebody who is known", async () => {
    await bob.client.inviteByEmail(room, "alice@example.com");
    assert.deepEqual(await invited(), { invited: [alice.id], third_party: [] });
});
await step("inviteByEmail of a stranger", async () => {
    await bob.client.inviteByEmail(room, "carol@example.com");
    assert.deepEqual((await invited()).third_party, ["car...@exa..."]);
});
async function invited() {
    return (await fetch(`${HOMESERVER}/interop/room`)).json();
}

const carol = await user("carol");
await step("joinRoom by the invite's signurl", async () => {
    const page = await follow(link(await inbox("carol@example.com")));
    const href = page.match(/href="(https:\/\/app\.element\.io\/[^"]*)"/)[1].replaceAll("&amp;", "&");
    const inviteSignUrl = new URLSearchParams(href.slice(href.indexOf("?"))).get("signurl");
    assert.equal((await carol.client.joinRoom(room, { inviteSignUrl })).roomId, room);
});
await step("bindThreePid of the stranger, of which the homeserver hears", async () => {
    const { sid } = await carol.client.requestEmailToken("carol@example.com", SECRET, 1, undefined, carol.session.token);
    await follow(link(await inbox("carol@example.com")));
    await carol.client.bindThreePid({ sid, client_secret: SECRET, id_server: ID_SERVER, id_access_token: carol.session.token });
    const told = await (await fetch(`${HOMESERVER}/interop/told?mxid=${encodeURIComponent(carol.id)}`)).json();
    assert.deepEqual([told.address, told.invites.length, told.invites[0].room_id], ["carol@example.com", 1, room]);
});

await step("unbindThreePid", async () => {
    assert.deepEqual(await client.unbindThreePid("email", "alice@example.com"), { id_server_unbind_result: "success" });
    assert.deepEqual(await found("alice@example.com"), {});
});
await step("deleteThreePid", async () => {
    assert.deepEqual(await client.deleteThreePid("msisdn", "447700900001"), { id_server_unbind_result: "success" });
    assert.deepEqual(await client.lookupThreePid("msisdn", "447700900001", token), {});
});
console.log("matrix-js-sdk and identity understand each other");
