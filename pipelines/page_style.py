"""What the pages have in common: their style, inlined so that a page needs nothing else, and parts in that style."""

from collections.abc import Iterable, Mapping
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
.bars td { border: 0; padding: 3px 10px; } .bars td.plot { width: 34%; }
.bar { position: relative; height: 15px; background: var(--track); border-radius: 3px; }
.bar i { position: absolute; left: 0; top: 0; height: 15px; border-radius: 3px; min-width: 1px; }
.bar i.floor { background: var(--ink); opacity: .55; height: 5px; top: 5px; }
.bar i.tick { background: var(--ink); width: 2px; margin-left: -1px; min-width: 0; border-radius: 0; }
.bar i.kernel { background: var(--kernel); } .bar i.compiled { background: var(--compiled); }
.audit { margin: 14px 0 0; color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.facts + .audit { margin-bottom: 18px; } .audit + .scroll { margin-top: 22px; }
.audit b { color: var(--ink); font-weight: 600; }
details > summary { cursor: pointer; color: var(--soft); font-size: 12.5px; margin-bottom: 8px; }
#tip { position: fixed; z-index: 9; display: none; max-width: 420px; padding: 11px 14px;
  border-radius: 9px; font-size: 12.5px;
  background: var(--ink); color: var(--paper); box-shadow: 0 8px 30px #0005; pointer-events: none; }
#tip table td { border: 0; padding: 1px 14px 1px 0; } #tip b { font-weight: 650; }
#tip table { margin-top: 5px; width: auto; } #tip tr td:last-child { text-align: right; padding-right: 0; }
"""


def document(title: str, body: str, *, style: str = "", after: str = "") -> str:
    """The whole HTML document; ``style`` is added to STYLE, ``after`` follows the main part."""
    title = escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{style}</style></head><body><main><h1>{title}</h1>"
        f"{body}</main>{after}</body></html>\n"
    )


def facts_list(facts: Mapping[str, str]) -> str:
    """What the page is of, by what each is."""
    items = "".join(f"<li><span>{escape(key)}</span>{escape(value)}</li>" for key, value in facts.items())
    return f'<ul class="facts">{items}</ul>'


def name_cell(name: str, origin: str = "") -> str:
    """A table's cell with the name of an op, or of several, which is broken where it is too long for the page.

    ``origin`` is shown over it.
    """
    title = f' title="{escape(origin)}"' if origin else ""
    return f'<td class="name"><code{title}>{escape(name).replace("+", "+<wbr>")}</code></td>'


def number_heads(names: Iterable[str]) -> str:
    """Headings of columns of numbers."""
    return "".join(f'<th class="right">{escape(name)}</th>' for name in names)


def number_cells(*texts: str) -> str:
    """A table's cells with numbers."""
    return "".join(f'<td class="right number">{escape(text)}</td>' for text in texts)


def bar_cell(marks: Mapping[str, float | None], longest: float, start: float = 0.0) -> str:
    """A table's cell with values as bars: "kernel" or "compiled", a thin "floor" over it, and a "tick".

    Bars begin at ``start``; what would end behind ``longest`` is cut off there. None is left out.
    """
    left = min(start / longest, 1.0)
    drawn = ""
    for style, value in marks.items():
        if value is not None:
            end = min((start + value) / longest, 1.0)
            place = f"left:{end:.2%}" if style == "tick" else f"left:{left:.2%};width:{end - left:.2%}"
            drawn += f'<i class="{style}" style="{place}"></i>'
    return f'<td class="plot"><div class="bar">{drawn}</div></td>'
