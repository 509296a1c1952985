"""Make the manual pages from the reference: ``python docs/man/generate.py [OUTPUT]``.

The reference is Markdown, of which it uses headings, paragraphs, lists, tables, code and links;
the page of the admin interface is made from the interface file and its comments.  What is made is
committed, and a test holds the two to each other.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
# What mandoc wants to see in a head; nobody has to keep it up.
DATE = "2026-11-26"
# Pages of the reference that are manual pages here.
MANUALS = {
    "lazypagesd-serve.md": "lazypagesd(8)",
    "lazypagesd-lazy-pages.md": "lazypagesd(8)",
    "lazypagesd-can-take-over.md": "lazypagesd(8)",
    "lazypagesctl.md": "lazypagesctl(1)",
    "lazypagesd.toml.md": "lazypagesd.toml(5)",
}
# What manual pages call it.
HEADINGS = {"Exit code": "Exit status"}
# How the heading of a command begins.
COMMAND = "lazypagesctl "
INTERFACE = DOCS.parent / "lazypagesd/service/org.lazypages.Manager.varlink"


@dataclass(frozen=True, slots=True)
class Page:
    """A manual page: its *section*, what it is in a line, and of which parts it is made."""

    name: str
    section: int
    what: str
    parts: tuple[str, ...]
    see_also: str
    synopsis: str = ""  # where that is no command's
    description: str = ""  # where each part has a section of its own


PAGES = (
    Page(
        "lazypagesd",
        8,
        "feed memory to processes that are being restored",
        ("lazypagesd-serve", "lazypagesd-lazy-pages", "lazypagesd-can-take-over"),
        "lazypagesctl(1), lazypagesd.toml(5), org.lazypages.Manager(7), criu(8)",
        description="Processes that are restored lazily run before their memory is back.  `serve`"
        " feeds it to the restores of everybody, page by page as it is touched, `lazy-pages` does"
        " so for one checkpoint in the place of `criu lazy-pages`, and `can-take-over` says"
        " whether this version may follow a daemon that runs.",
    ),
    Page(
        "lazypagesctl",
        1,
        "ask lazypagesd what it does, and tell it what to do",
        ("lazypagesctl",),
        "lazypagesd(8), org.lazypages.Manager(7), criu(8)",
    ),
    Page(
        "lazypagesd.toml",
        5,
        "configuration of lazypagesd serve",
        ("lazypagesd.toml",),
        "lazypagesd(8)",
        synopsis="/etc/lazypagesd.toml",
    ),
    Page(
        "org.lazypages.Manager",
        7,
        "Varlink interface of lazypagesd",
        (),
        "lazypagesctl(1), lazypagesd(8), varlinkctl(1)",
    ),
)


def escape(text: str) -> str:
    """Return *text* as roff that prints it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(['.])", r"\\&\1", text)


def inline(text: str) -> str:
    """Return Markdown within a line as roff: code and emphasis are bold, links are their texts."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)]*)\)", link, text)
    pieces = re.split(r"(``.+?``|`[^`]+`|\*\*[^*]+\*\*)", text)
    done = []
    for piece in pieces:
        if piece.startswith(("`", "**")):
            done.append(f"\\fB{escape(piece.strip('`* '))}\\fR")
        else:
            done.append(escape(re.sub(r"\\([\[\]|*])", r"\1", piece)))
    return re.sub(r"^(['.])", r"\\&\1", "".join(done))


def link(match: re.Match[str]) -> str:
    """Return what stands for a link: a manual page, or its text."""
    return MANUALS.get(match[2].rpartition("/")[2], match[1])


def body(markdown: str, deepest: int) -> Iterator[str]:
    """Yield the lines of a part of the reference, but its title, as roff; headings as deep as
    *deepest* are sections."""
    lines, i, in_commands = markdown.splitlines(), 0, False
    while i < len(lines):
        line = lines[i]
        if heading := re.match("(#+) (.*)", line):
            text = heading[2]
            if len(heading[1]) > deepest:
                yield f".SS {inline(HEADINGS.get(text, text))}"
            elif text.startswith(COMMAND):
                if not in_commands:
                    yield ".SH COMMANDS"
                in_commands = True
                yield f".SS {inline(text.removeprefix(COMMAND))}"
            else:
                yield f".SH {inline(HEADINGS.get(text, text).upper())}"
            i += 1
            # A paragraph begins there anyway.
            while i < len(lines) and not lines[i].strip():
                i += 1
            if i < len(lines) and lines[i][:1] not in "|#- " and (text := inline(lines[i])):
                yield text
                i += 1
        elif line.startswith("|"):
            end = next((k for k in range(i, len(lines)) if lines[k][:1] != "|"), len(lines))
            yield from table(lines[i:end])
            i = end
        elif line.startswith("    "):
            end = next((k for k in range(i, len(lines)) if lines[k][:4].strip()), len(lines))
            # A heading begins a paragraph.
            if not next((line for line in reversed(lines[:i]) if line), "").startswith("#"):
                yield ".PP"
            yield from (".nf", ".RS 4")
            yield from map(escape, dedented(lines[i:end]))
            yield from (".RE", ".fi")
            i = end
        elif item := re.match("- (.*)", line):
            yield from (".IP \\(bu 2", inline(item[1]))
            i += 1
            while i < len(lines) and lines[i].startswith("  "):
                yield inline(lines[i].strip())
                i += 1
        elif line.strip():
            # A picture is none here.
            if text := inline(line):
                if i and not lines[i - 1].strip():
                    yield ".PP"
                yield text
            i += 1
        else:
            i += 1


def dedented(lines: Sequence[str]) -> list[str]:
    """Return code as it is, without the blank lines at its end."""
    return "\n".join(line[4:] for line in lines).rstrip().split("\n")


def table(lines: Sequence[str]) -> Iterator[str]:
    """Yield a table: each row an entry, tagged with its first cell."""
    head, _rule, *rows = (cells(line) for line in lines)
    for tag, *rest in rows:
        yield ".TP"
        yield inline(tag)
        for name, cell in zip(head[1:], rest, strict=True):
            if cell:
                yield inline(f"({name}: {cell})" if name == "default" else cell)


def cells(line: str) -> list[str]:
    """Return the cells of a row."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def interface_body(text: str) -> Iterator[str]:
    """Yield the interface file: its comments as text, its definitions as they are."""
    comment: list[str] = []
    definition: list[str] = []
    sections = {"type": "TYPES", "method": "METHODS", "error": "ERRORS"}
    section = ""
    for line in [*text.splitlines(), ""]:
        if definition or re.match("(interface|type|method|error) ", line):
            definition.append(line)
            joined = "\n".join(definition)
            # On to the last parenthesis; several methods may share a comment.
            if joined.count("(") != joined.count(")") or line.rstrip().endswith("->"):
                continue
            kind = definition[0].split()[0]
            if kind == "interface":
                yield from (".SH SYNOPSIS", inline(definition[0]), ".SH DESCRIPTION")
            elif sections[kind] != section:
                section = sections[kind]
                yield f".SH {section}"
            if kind != "interface":
                yield f".SS {escape(definition[0].split()[1].split('(')[0])}"
                yield from (".nf", *map(escape, definition), ".fi")
            if comment and kind != "interface":
                yield ".PP"
            for each in comment:
                yield inline(each) if each else ".PP"
            comment, definition = [], []
        elif line.startswith("#"):
            comment.append(line.removeprefix("#").strip())


def page_of(page: Page) -> str:
    """Return a whole page."""
    lines = [
        '.\\" Made from the reference by docs/man/generate.py: change that.',
        f'.TH "{page.name}" "{page.section}" "{DATE}" "lazypagesd" "lazypagesd"',
        ".SH NAME",
        f"{escape(page.name)} \\- {escape(page.what)}",
    ]
    texts = [(DOCS / "reference" / f"{part}.md").read_text() for part in page.parts]
    if synopses := [synopsis for text in texts if (synopsis := synopsis_of(text))]:
        lines += [".SH SYNOPSIS", ".nf", *(escape(s.rstrip()) for s in synopses), ".fi"]
    elif page.synopsis:
        lines += [".SH SYNOPSIS", inline(page.synopsis)]
    if page.description:
        lines += [".SH DESCRIPTION", inline(page.description)]
    for text in texts:
        title, _, rest = text.replace(synopsis_of(text), "").partition("\n")
        name = title.removeprefix("# ")
        first = "DESCRIPTION" if len(page.parts) == 1 else name.upper()
        lines += [f".SH {escape(first)}", *body(rest.lstrip(), 3 - min(len(page.parts), 2))]
    if not page.parts:
        lines += interface_body(INTERFACE.read_text())
    lines += [".SH SEE ALSO", escape(page.see_also)]
    return "\n".join(lines) + "\n"


def synopsis_of(text: str) -> str:
    """Return the code that stands before the first heading of a part that is a command's."""
    found = re.search(r"(?:^    .*\n|^\n(?=    ))+", text.partition("\n## ")[0], re.MULTILINE)
    return found[0] if found and "lazypages" in found[0].split()[0] else ""


def generate(output: Path) -> None:
    """Write all pages into *output*."""
    for page in PAGES:
        (output / f"{page.name}.{page.section}").write_text(page_of(page))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
