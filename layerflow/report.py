"""One HTML page with all cards of a run, for people without the UI. It loads nothing and runs nothing."""

import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

from layerflow.config import RetrainConfig

_STYLE = """
:root { color-scheme: light dark; --line: #d8dbe0; --page: #ffffff; --text: #1d2127; --link: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --line: #363b44; --page: #14171b; --text: #d9dce1; --link: #56b4e9 } }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; background: var(--page); color: var(--text);
       font: 15px/1.5 system-ui, sans-serif }
section, footer { border-top: 1px solid var(--line); margin-top: 2rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 1.6rem }
nav a { color: var(--link); margin-right: 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: left }
img { max-width: 100%; vertical-align: middle }
code { overflow-wrap: anywhere; font-size: .9em }
"""


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802  (its name there)
        """Only pictures that are in the page: a class may be called anything."""
        return url.startswith("data:image/png;base64,")


_markdown = _Markdown("commonmark", {"html": False}).enable("table")


def render(config: RetrainConfig, cards: Mapping[str, str]) -> str:
    """The page of a run.

    Args:
        config: Settings of the run.
        cards: Markdown by name, in the order in which it is shown.
    """
    links = "".join(f'<a href="#{name}">{name}</a>' for name in cards)
    sections = "".join(f'<section id="{name}">\n{_markdown.render(card)}</section>\n' for name, card in cards.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(config.registry_name)}</title>
<style>{_STYLE}</style>
<nav>{links}</nav>
{sections}<footer><p>Again: <code>layerflow retrain {html.escape(config.as_flags)}</code></p></footer>
</html>
"""
