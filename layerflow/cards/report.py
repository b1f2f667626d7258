"""One HTML page with all cards of a run, for people without the UI. It loads nothing and runs nothing."""

import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

from layerflow.cards.markdown import as_code
from layerflow.config import RetrainConfig

_STYLE = """
:root { color-scheme: light dark; --line: #d8dbe0; --page: #ffffff; --panel: #f4f5f7; --text: #1d2127; --quiet: #5b626d;
        --link: #0072b2; --good: #00805c; --bad: #b84f00 }
@media (prefers-color-scheme: dark) {
  :root { --line: #363b44; --page: #14171b; --panel: #1f242a; --text: #d9dce1; --quiet: #9aa2ad;
          --link: #56b4e9; --good: #2fbf93; --bad: #f08a3c }
}
body { margin: 0 auto; max-width: 56rem; padding: 0 1rem 2rem; background: var(--page); color: var(--text);
       font: 15px/1.5 system-ui, sans-serif; --mark: var(--quiet) }
body.promoted, body.unchanged { --mark: var(--good) } body.kept, body.refused { --mark: var(--bad) }
body.waiting { --mark: var(--link) }
nav { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: .75rem 0;
      background: var(--page); border-bottom: 1px solid var(--line) }
nav a { color: var(--link); text-decoration: none; text-transform: capitalize }
nav a:hover { text-decoration: underline }
section { scroll-margin-top: 3rem; margin-top: 2.5rem; padding-top: .5rem; border-top: 1px solid var(--line) }
section:first-of-type { border: 0; margin-top: 0 }
footer { border-top: 1px solid var(--line); margin-top: 2rem }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
th { color: var(--quiet); font-weight: 500; font-size: .87em }
th, td { border-bottom: 1px solid var(--line); padding: .3rem 1.2rem .3rem 0; text-align: left }
img { max-width: 100%; vertical-align: middle }
code { overflow-wrap: anywhere; font-size: .9em }
li { margin: .25rem 0 }

/* The summary: the decision in the colour of its status, and the four figures as tiles. */
#decision > h1 { margin: 1.5rem 0 .75rem; padding-left: .9rem; border-left: .35rem solid var(--mark) }
#decision > h1 + p { margin: 0 0 1.25rem; padding-left: 1.25rem }
#decision > h1 + p + table { display: grid; grid-template-columns: repeat(4, minmax(9rem, 1fr)); gap: 0 .75rem }
#decision > h1 + p + table :is(thead, tbody, tr) { display: contents }
#decision > h1 + p + table :is(th, td) { border: 0; padding: 0 1rem; background: var(--panel); overflow-wrap: anywhere }
#decision > h1 + p + table th { padding-top: .75rem; border-radius: .6rem .6rem 0 0 }
#decision > h1 + p + table strong { font-size: 1.9rem; line-height: 1.3; font-weight: 650 }
#decision > h1 + p + table tr:last-child td { padding-bottom: .8rem; border-radius: 0 0 .6rem .6rem;
                                              color: var(--quiet); font-size: .87em }
"""


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802  (its name there)
        """Only pictures that are in the page: a class may be called anything."""
        return url.startswith("data:image/png;base64,")


_markdown = _Markdown("commonmark", {"html": False}).enable("table")


def render(config: RetrainConfig, cards: Mapping[str, str], status: str = "") -> str:
    """The page of a run.

    Args:
        config: Settings of the run.
        cards: Markdown by name, in the order in which it is shown; that of the decision starts with its summary.
        status: The decision's, which gives the summary its colour.
    """
    return page(config.registry_name, cards, f"To reproduce: {as_code(f'layerflow retrain {config.as_flags}')}", status)


def page(title: str, cards: Mapping[str, str], end: str, status: str = "") -> str:
    """A page of cards.

    Args:
        title: That of the window.
        cards: As ``render`` takes them.
        end: Markdown below the cards.
        status: As ``render`` takes it.
    """
    links = "".join(f'<a href="#{name}">{name}</a>' for name in cards)
    sections = "".join(f'<section id="{name}">\n{_markdown.render(card)}</section>\n' for name, card in cards.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<body class="{html.escape(status)}">
<nav>{links}</nav>
{sections}<footer>{_markdown.render(end)}</footer>
</body>
</html>
"""
