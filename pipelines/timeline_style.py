"""Style and behaviour of the pages: inlined, so that a page needs nothing else."""

from html import escape

STYLE = """
:root {
  --paper: #fbfaf8; --card: #ffffff; --ink: #1c2430; --soft: #667085; --line: #e5e2dc; --track: #f1efea;
  --kernel: #14746f; --kernel-soft: #d8ece9; --compiled: #c2762c; --compiled-soft: #f8e8d4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1b1f26; --ink: #e6e8ec; --soft: #98a2b3; --line: #2c323c; --track: #232833;
    --kernel: #3fb5a8; --kernel-soft: #17393a; --compiled: #e09a4f; --compiled-soft: #40301c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 40px 28px 80px; }
h1 { font-size: 26px; font-weight: 650; letter-spacing: -.01em; margin: 0 0 4px; }
h2 { font-size: 17px; font-weight: 620; margin: 0; }
code, .number { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace;
  font-variant-numeric: tabular-nums; }
code { font-size: 12.5px; }
.soft { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 18px 0 22px; padding: 0; list-style: none; }
.facts li span { display: block; color: var(--soft); font-size: 11.5px;
  text-transform: uppercase;
  letter-spacing: .05em; }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 26px; }
nav a { color: var(--ink); text-decoration: none; border: 1px solid var(--line); border-radius: 999px;
  padding: 3px 12px;
  background: var(--card); font-size: 12.5px; }
nav a:hover { border-color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 20px; margin: 0 0 18px; color: var(--soft);
  font-size: 12.5px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 22px 24px; margin: 0 0 22px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; margin-bottom: 16px; }
header .sum { margin-left: auto; color: var(--soft); }
header .sum b { color: var(--ink); font-weight: 620; }
.strip { display: flex; gap: 2px; height: 88px; margin-bottom: 4px; }
.level { flex: var(--share) 1 0; min-width: 4px; display: flex; flex-direction: column; gap: 2px; }
.block { flex: var(--part) 1 0; min-height: 8px; border-radius: 4px; padding: 6px 0 0 8px;
  overflow: hidden; position: relative;
  white-space: nowrap; color: #fff; font-size: 12px; line-height: 1.35; cursor: default;
  transition: filter .12s; }
@media (prefers-color-scheme: dark) { .block { color: #10141a; } }
.block small { display: block; opacity: .82; font-size: 11px; }
.block.kernel { background: var(--kernel); } .block.compiled { background: var(--compiled); }
.block::after { content: ""; position: absolute; left: 0; right: 0; bottom: 0; height: 5px;
  background: #fff8;
  width: var(--written); }
.block.bare { padding: 0; } .block span { display: block; overflow: hidden; text-overflow: ellipsis;
  padding-right: 6px; }
.lit.block { filter: brightness(1.25) saturate(1.15); }
.caption { color: var(--soft); font-size: 12px; margin: 0 0 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 11.5px;
  text-transform: uppercase; letter-spacing: .05em; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; } th { vertical-align: bottom; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 19em; }
tbody tr:last-child td { border-bottom: 0; }
tfoot td { border-top: 1px solid var(--line); border-bottom: 0; font-weight: 600; }
td.right, th.right { text-align: right; }
tr.lit td { background: var(--track); }
.chip { border-radius: 999px; padding: 1px 9px; font-size: 11.5px; }
.chip.kernel { color: var(--kernel); background: var(--kernel-soft); }
.chip.compiled { color: var(--compiled); background: var(--compiled-soft); }
.share { width: 120px; } .share div { background: var(--track); border-radius: 3px; }
.share i { display: block; height: 8px; border-radius: 3px; min-width: 2px; }
.share i.kernel { background: var(--kernel); } .share i.compiled { background: var(--compiled); }
.audit { margin: 14px 0 0; color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.facts + .audit { margin-bottom: 18px; } .audit b { color: var(--ink); font-weight: 600; }
details > summary { cursor: pointer; color: var(--soft); font-size: 12.5px; margin-bottom: 8px; }
#tip { position: fixed; z-index: 9; display: none; max-width: 420px; padding: 11px 14px;
  border-radius: 9px; font-size: 12.5px;
  background: var(--ink); color: var(--paper); box-shadow: 0 8px 30px #0005; pointer-events: none; }
#tip table td { border: 0; padding: 1px 14px 1px 0; } #tip b { font-weight: 650; }
#tip table { margin-top: 5px; width: auto; } #tip tr td:last-child { text-align: right; padding-right: 0; }
"""

SCRIPT = """
const tip = document.getElementById('tip');
const parts = key => document.querySelectorAll('[data-key="' + key + '"]');
document.querySelectorAll('[data-key]').forEach(part => {
  const template = document.getElementById('detail-' + part.dataset.key);
  part.addEventListener('mouseenter', () => {
    parts(part.dataset.key).forEach(p => p.classList.add('lit'));
    tip.replaceChildren(template.content.cloneNode(true));
    tip.style.display = 'block';
  });
  part.addEventListener('mousemove', event => {
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 16, innerWidth - box.width - 12)) + 'px';
    const below = event.clientY + 18;
    tip.style.top = (below + box.height > innerHeight ? event.clientY - box.height - 14 : below) + 'px';
  });
  part.addEventListener('mouseleave', () => {
    parts(part.dataset.key).forEach(p => p.classList.remove('lit'));
    tip.style.display = 'none';
  });
});
"""


def name_cell(name: str, origin: str = "") -> str:
    """A table's cell with the name of an op, or of several, which is broken where it is too long for the page.

    ``origin`` is shown over it.
    """
    title = f' title="{escape(origin)}"' if origin else ""
    return f'<td class="name"><code{title}>{escape(name).replace("+", "+<wbr>")}</code></td>'
