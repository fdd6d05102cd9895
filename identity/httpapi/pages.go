package httpapi

import (
	"bytes"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
)

//go:embed pages
var embedded embed.FS

// Names of the pages, and of the style sheet that they include.
const (
	successPage = "success.html"
	failurePage = "failure.html"
	confirmPage = "confirm.html"
	invitePage  = "invite.html"
	styleSheet  = "style.css"
)

// Why a link did not work, for the failure page.
const (
	reasonExpired     = "expired"     // the session is too old
	reasonVoid        = "void"        // the link was replaced by a newer one, used up, or never valid
	reasonBroken      = "broken"      // part of the link is missing
	reasonInvite      = "invite"      // there is no such invite, or not any more
	reasonLimit       = "limit"       // too many links were followed from the same address
	reasonUnavailable = "unavailable" // the fault is ours
)

// reasons lists them all.
func reasons() []string {
	return []string{reasonExpired, reasonVoid, reasonBroken, reasonInvite, reasonLimit, reasonUnavailable}
}

// brandPattern is what the folder of a brand may be called, as among the words of
// mails.
var brandPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// Pages are what people see in a browser after following a link.
type Pages struct {
	templates *template.Template
	brand     string            // "" for the pages of no brand in particular
	brands    map[string]*Pages // those with pages of their own
}

// Brands are those with pages of their own.
func (p *Pages) Brands() []string { return slices.Sorted(maps.Keys(p.brands)) }

// of returns the pages of a brand, p itself if there are none.
func (p *Pages) of(brand string) *Pages {
	if b, ok := p.brands[brand]; ok {
		return b
	}
	return p
}

// page is what a template knows.
type page struct {
	Nonce  string          // for the nonce attribute of style elements; no other style is shown
	Medium threepid.Medium // "email" or "msisdn"
	Reason string          // on the failure page: expired, void, broken, invite, limit or unavailable

	// With the reason limit, how long to wait: the whole time in minutes, rounded up,
	// and the same in hours.
	Minutes, Hours int

	// On the confirm page, what its form sends to Action.
	Action, SID, ClientSecret, Token string

	// On the invite page: who invites, by what they call themselves, which may be
	// empty, and by their user ID; whereto, which may be empty; and with what.
	Inviter, Sender, Room string
	Space                 bool
	Clients               []clientLink
}

// clientLink leads to a client.
type clientLink struct {
	Name, URL string
}

// LoadPages returns the pages. Those in the folder dir, templates of
// html/template named success.html, failure.html, confirm.html, invite.html and
// style.css, take the place of the built-in ones; dir may be "", and any of them may be
// missing. A folder in dir holds those of the brand it is named after, and any that
// it does not have are dir's. It fails if a file there has another name, or if a page
// cannot be shown in one of the situations in which it will have to be.
func LoadPages(dir string) (*Pages, error) {
	p := &Pages{}
	var err error
	if p.templates, err = template.ParseFS(embedded, "pages/*"); err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	if dir != "" {
		if err := p.override(dir); err != nil {
			return nil, fmt.Errorf("pages: %w", err)
		}
	}
	faults := []error{p.check()}
	for _, name := range p.Brands() {
		if err := p.brands[name].check(); err != nil {
			faults = append(faults, fmt.Errorf("brand %s: %w", name, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	return p, nil
}

// override replaces templates by the files in dir, and has its folders do so for
// their brands.
func (p *Pages) override(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var files, folders []string
	for _, e := range entries {
		switch {
		case p.brand == "" && brandPattern.MatchString(e.Name()) && isFolder(filepath.Join(dir, e.Name())):
			folders = append(folders, e.Name())
		case slices.Contains([]string{successPage, failurePage, confirmPage, invitePage, styleSheet}, e.Name()):
			files = append(files, filepath.Join(dir, e.Name()))
		case !strings.HasPrefix(e.Name(), "."):
			err = errors.Join(err, &fs.PathError{Op: "load", Path: filepath.Join(dir, e.Name()), Err: errors.New("not the name of a page")})
		}
	}
	if err == nil && len(files) > 0 {
		_, err = p.templates.ParseFiles(files...)
	}
	for _, name := range folders {
		if err == nil {
			err = p.add(name, filepath.Join(dir, name))
		}
	}
	return err
}

// add makes the pages of a brand out of p and the files in dir.
func (p *Pages) add(brand, dir string) error {
	templates, err := p.templates.Clone()
	if err != nil {
		return err
	}
	if p.brands == nil {
		p.brands = make(map[string]*Pages)
	}
	p.brands[brand] = &Pages{templates: templates, brand: brand}
	return p.brands[brand].override(dir)
}

// isFolder follows links, as configuration maps of Kubernetes are made of.
func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// check renders every page in every situation.
func (p *Pages) check() error {
	var faults []error
	for _, medium := range []threepid.Medium{threepid.MediumEmail, threepid.MediumMSISDN} {
		sample := page{Nonce: "nonce", Medium: medium}
		faults = append(faults, p.templates.ExecuteTemplate(io.Discard, successPage, sample))
		for _, reason := range reasons() {
			sample.Reason, sample.Minutes, sample.Hours = reason, 90, 2
			faults = append(faults, p.templates.ExecuteTemplate(io.Discard, failurePage, sample))
		}
		sample.Reason = ""
		sample.Action, sample.SID, sample.ClientSecret, sample.Token = confirmAction, "sid", "secret", "token"
		faults = append(faults, p.templates.ExecuteTemplate(io.Discard, confirmPage, sample))
	}
	sample := page{Nonce: "nonce", Medium: threepid.MediumEmail, Sender: "@bob:example.org"}
	for range 2 { // without the names and the client, and with them
		for _, sample.Space = range []bool{false, true} {
			faults = append(faults, p.templates.ExecuteTemplate(io.Discard, invitePage, sample))
		}
		sample.Inviter, sample.Room, sample.Clients = "Bob", "Tea", []clientLink{{"App", "https://app.example.org/"}}
	}
	return errors.Join(faults...)
}

func (p *Pages) success(w http.ResponseWriter, medium threepid.Medium) error {
	return p.show(w, http.StatusOK, successPage, page{Medium: medium})
}

func (p *Pages) failure(w http.ResponseWriter, status int, medium threepid.Medium, reason string) error {
	return p.show(w, status, failurePage, page{Medium: medium, Reason: reason})
}

// limited asks a person to wait, in words and for the browser.
func (p *Pages) limited(w http.ResponseWriter, medium threepid.Medium, wait time.Duration) error {
	mxhttp.SetRetryAfter(w.Header(), wait)
	return p.show(w, http.StatusTooManyRequests, failurePage, page{
		Medium: medium, Reason: reasonLimit,
		Minutes: int((wait + time.Minute - 1) / time.Minute), Hours: int((wait + time.Hour - 1) / time.Hour),
	})
}

func (p *Pages) confirm(w http.ResponseWriter, medium threepid.Medium, l link) error {
	action := confirmAction
	if p.brand != "" {
		action += "?brand=" + p.brand
	}
	return p.show(w, http.StatusOK, confirmPage, page{
		Medium: medium, Action: action, SID: l.sid, ClientSecret: l.clientSecret, Token: l.token,
	})
}

func (p *Pages) invite(w http.ResponseWriter, i identity.Invite, clients []clientLink) error {
	return p.show(w, http.StatusOK, invitePage, page{
		Medium: i.Address.Medium, Sender: templates.UserID(i.Sender), Space: i.Space(), Clients: clients,
		Inviter: templates.Name(i.About.SenderName, templates.MaxInviter), Room: templates.Name(i.About.RoomName, templates.MaxRoom),
	})
}

func (p *Pages) show(w http.ResponseWriter, status int, name string, content page) error {
	content.Nonce = rand.Text()
	var buf bytes.Buffer
	if err := p.templates.ExecuteTemplate(&buf, name, content); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	pageHeader(w.Header(), content.Nonce)
	w.WriteHeader(status)
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write page %s: %w", name, err)
	}
	return nil
}

// pageHeader sets the header of a page: it shows what the service wrote and
// loads, runs, embeds and remembers nothing.
func pageHeader(h http.Header, nonce string) {
	style := "'none'"
	if nonce != "" {
		style = "'nonce-" + nonce + "'"
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	// A browser may apply form-action to where the form's answer redirects to,
	// and that is any next_link.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+style+
		"; form-action 'self' https: http:; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the page's URL holds the token
	h.Set("Cache-Control", "no-store")
}
