"""Commands about the catalog: apply, export, migrate-plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from control_plane.cli.admin_http import ApiProblem, Desk, cells, counted, is_name, speaks, table
from control_plane.cli.catalog_yaml import line_of, read_catalog, write_catalog
from control_plane.core.catalog_file import CatalogFile, concise

_MARKS = {"new": ("+", "green"), "changed": ("~", "yellow"), "unchanged": (" ", "dim")}
_NAMES = {"meters": "meter", "features": "feature", "price_books": "price book", "plans": "plan", "add_ons": "add-on"}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Only show what would change, and for whom.")
@click.option("--all", "show_all", is_flag=True, help="Show also what does not change.")
@speaks
def apply(desk: Desk, file: Path, dry_run: bool, show_all: bool) -> None:
    """Make the catalog what FILE says (YAML; - reads standard input), all of it or nothing.

    What is new is added, and plans that say something else get their next version: subscribers keep the version they
    have until you move them (`allotment migrate-plan`). Nothing that FILE does not name is touched, and nothing is ever
    deleted. Applying the same file again changes nothing.

    \b
    Look first:    allotment apply catalog.yaml --dry-run
    Then do it:    allotment apply catalog.yaml
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    try:
        done = desk.put("/v1/catalog", read_catalog(text, str(file)), dry_run="true" if dry_run else None)
    except ApiProblem as wrong:
        line = line_of(text, wrong.field) if wrong.field else None
        raise click.ClickException(f"{file}:{line}: {wrong.message}" if line else wrong.message) from None
    desk.show(done, lambda console: _draw(console, done, show_all))


@click.command()
@speaks
def export(desk: Desk) -> None:
    """Print the catalog as YAML: the newest version of everything, in a stable order.

    Applied again it changes nothing. Prices that were seeded from a library are not in it: seed them there again.

    \b
    Into Git:      allotment export > catalog.yaml
    """
    found = desk.get("/v1/catalog")
    if desk.as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    file = msgspec.convert(found, CatalogFile)
    click.echo(write_catalog(concise(file)) if found and concise(file) else "{}", nl=False)


def _versions(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """For click. Raises: BadParameter."""
    try:
        return [int(part) for part in value.split(",") if part.strip()]
    except ValueError:
        raise click.BadParameter("expected versions, as 1,2", ctx=context, param=parameter) from None


def _migration(name: str, what: str, path: str) -> click.Command:
    @click.command(name)
    @click.argument("key", metavar=what.upper().replace("-", "_"), callback=is_name)
    @click.option("--to", type=click.IntRange(1, 2**31 - 1), help="To this version; else the newest.")
    @click.option("--from", "versions", default="", callback=_versions, help="From these, as 1,2; else all older ones.")
    @click.option("--when", default="now", show_default=True, help="now, period_end (each one's own), or an instant.")
    @click.option("--name", callback=is_name, help="Of the migration: it moves a customer once. Else made from --to.")
    @click.option(
        "--dry-run", is_flag=True, help="Only show who would be moved, and whose limits fall below their use."
    )
    @speaks
    def migrate(
        desk: Desk, key: str, to: int | None, versions: list[int], when: str, name: str | None, dry_run: bool
    ) -> None:
        version = to or desk.get(f"{path}/{key}")["version"]
        order = {"migration": name or f"to-{version}-{when[:20]}", "to": version, "from": versions, "when": when}
        pages: list[dict[str, Any]] = []
        cursor = None
        while not pages or cursor is not None:
            pages.append(desk.post(f"{path}/{key}/migrations", {**order, "dry_run": dry_run, "cursor": cursor}))
            cursor = pages[-1]["next_cursor"]
        lists = ("moved", "held_back", "refused", "below")
        whole = {**pages[0], **{one: [each for page in pages for each in page[one]] for one in lists}}
        desk.show(whole, lambda console: _draw_migration(console, f"{key}@{version}", whole))

    article = "an" if what[0] in "aeiou" else "a"
    migrate.help = f"""Move subscribers from older versions of {article} {what} to a newer one.

    In batches; interrupted, just say it again. What else is arranged for them stays, and usage counts on. Look first:
    --dry-run also shows whose limits would fall below what they have used.
    """
    return migrate


migrate_plan = _migration("migrate-plan", "plan", "/v1/plans")
migrate_add_on = _migration("migrate-add-on", "add-on", "/v1/add-ons")


def _draw_migration(console: Console, version: str, found: dict[str, Any]) -> None:
    if found["below"]:
        shown = table("customer", "limit", "of", "used", "before", "after", title="Limits that fall below what is used")
        for one in found["below"]:
            before = "unlimited" if one["before"] is None else one["before"]
            named = (one["customer"], one["limit"], one["scope_value"], one["used"], before, one["after"])
            shown.add_row(*cells(*named))
        console.print(shown)
    for one in found["refused"]:
        console.print(Text(f"{one['customer']} cannot be moved: {one['detail']}"), soft_wrap=True)
    if found["held_back"]:
        listed = ", ".join(found["held_back"])
        console.print(
            Text(f"Moved before under this name and moved back since, so left alone: {listed}"), soft_wrap=True
        )
    head = f"{'Would be moved' if found['dry_run'] else 'Moved'} to {version}"
    below = len({one["customer"] for one in found["below"]})
    said = (
        f"{head}: {counted(len(found['moved']), 'customer')}, {below:,} of them with limits below what they have used."
    )
    console.print(Text(said), soft_wrap=True)


def _draw(console: Console, done: dict[str, Any], show_all: bool) -> None:
    for entry in done["entries"]:
        if entry["outcome"] == "unchanged" and not show_all:
            continue
        mark, style = _MARKS[entry["outcome"]]
        version = f"@{entry['version']}" if entry["version"] else ""
        console.print(Text(f"{mark} {_NAMES[entry['section']]} {entry['key']}{version}", style=style), soft_wrap=True)
        for change in entry["changes"]:
            said = f"    {change['field']}: {_value(change['before'])} -> {_value(change['after'])}"
            console.print(Text(said), soft_wrap=True)
        if said := _whom(entry):
            console.print(Text(f"    {said}"), soft_wrap=True)
    would = "would be " if done["dry_run"] else ""
    unchanged = f"{done['unchanged']} {'stay' if done['dry_run'] else 'are'} as they were"
    console.print(f"{done['new']} {would}new, {done['changed']} {would}changed, {unchanged}.", highlight=False)
    if done["dry_run"]:
        console.print("Nothing has changed: this was a dry run.")


def _whom(entry: dict[str, Any]) -> str:
    if entry["section"] in {"features", "meters"}:
        return f"changes what {counted(entry['customers'], 'customer')} may use" if entry["customers"] else ""
    staying = [one for one in entry["subscribers"] if entry["outcome"] == "changed"]
    if not staying:
        return ""
    listed = ", ".join(f"{one['customers']:,} on version {one['version']}" for one in staying)
    return f"subscribers keep what they have: {listed}"


def _value(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
