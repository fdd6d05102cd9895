// Answers the width of the page, the texts whose contrast with their background
// is below 4.5 (WCAG 2.2, 1.4.3), how many texts there are, and whether the
// page is dark.
(() => {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (; element; element = element.parentElement) {
      const rgb = parse(getComputedStyle(element).backgroundColor);
      if (rgb.length < 4 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const failed = [];
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (!text) continue;
    texts++;
    const element = walker.currentNode.parentElement;
    const [light, dark] = [luminance(parse(getComputedStyle(element).color)), luminance(background(element))].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) failed.push(`${contrast.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return {
    Width: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
    Failed: failed,
    Texts: texts,
    Dark: luminance(background(document.body)) < 0.2,
  };
})();
