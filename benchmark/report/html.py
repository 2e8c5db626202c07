"""Tables as an HTML document of its own: no script, nothing loaded."""

from collections.abc import Sequence

from .sheets import LONGEST, NOTHING, Cell, Column, Sheet, clean, fold, marked, stacked

DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ heading|clean }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 90rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: max-content; font-variant-numeric: tabular-nums; }
caption { font-size: 1.25rem; font-weight: bold; text-align: left; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; }
th { font-weight: normal; }
th:not(.right) { max-width: 30ch; }
th, caption, li { overflow-wrap: break-word; }
.right { text-align: right; white-space: nowrap; }
thead .group { text-align: center; border-bottom: 1px solid; }
thead, table { border-bottom: 2px solid; }
tbody tr + tr > * { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
u { text-underline-offset: .2em; }
</style>
</head>
<body>
<h1>{{ heading|clean }}</h1>
{% for sheet in sheets %}
<section>
{% if not sheet.rows %}
<h2>{{ sheet.title|clean }}</h2>
{% else %}
<div class="scroll" role="region" aria-label="{{ sheet.title|clean }}" tabindex="0">
<table>
<caption>{{ sheet.title|clean }}</caption>
<thead>
{% if sheet.groups() %}
<tr>
{% if sheet.keys %}<td colspan="{{ sheet.keys|length }}"></td>{% endif %}
{% for name, members in sheet.groups() %}
<th scope="colgroup" class="group" colspan="{{ members|length }}">{{ name|clean }}</th>
{% endfor %}
</tr>
{% endif %}
<tr>
{% for column in sheet.columns %}
<th scope="col"{{ side(column) }}>{{ head(column) }}</th>
{% endfor %}
</tr>
</thead>
<tbody>
{% for row in sheet.rows %}
<tr>
{% for column, cell in zip(sheet.columns, row) %}
{% if column.group %}
<td{{ side(column) }}>{{ drawn(cell) }}</td>
{% else %}
<th scope="row"{{ side(column) }}>{{ drawn(cell) }}</th>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
<ul>
{% for note in sheet.legend("best in bold", "second underlined") + sheet.notes|list %}
<li>{{ note|clean }}</li>
{% endfor %}
</ul>
</section>
{% else %}
<p>{{ nothing }}</p>
{% endfor %}
</body>
</html>
"""


def document(sheets: Sequence[Sheet], heading: str) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    def drawn(cell: Cell) -> str:
        before, body, after = marked(cell)
        tag = {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"}[cell.mark]
        return before + Markup(tag).format(body) + after

    def side(column: Column) -> str:
        return Markup(' class="right"') if column.align == "right" else ""

    def head(column: Column) -> str:
        lines = (line for part in stacked(column) for line in fold(part, LONGEST // 2))
        return Markup("<br>").join(lines)

    page = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    page.filters["clean"] = clean
    page.globals.update(drawn=drawn, side=side, head=head, zip=zip, nothing=NOTHING)
    return page.from_string(DOCUMENT).render(sheets=sheets, heading=heading)
