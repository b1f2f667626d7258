"""`layerflow alias`: names for versions."""

import json

from cyclopts import App

from cli.models_commands import OPTIONS, Json, Version

alias = App(
    name="alias",
    help="Show the aliases of a model's versions, or set and remove your own.",
    group_parameters=OPTIONS,
)


@alias.command
def show(name: str, /, *, as_json: Json = False) -> None:
    """Show the aliases of a model: live, previous, and your own.

    Parameters
    ----------
    name
        The model, such as mlp-digits.
    as_json
        Print one JSON object.
    """
    from layerflow.registry import sharing
    from layerflow.registry.aliases import aliases_of
    from layerflow.registry.versions import the_name

    sharing.refresh(name)
    found = aliases_of(the_name(name))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for each, version in found.items():
            print(f"{each} {version}")


@alias.command(name="set")
def set_(name: str, alias: str, version: Version, /) -> None:
    """Let an alias name a version, whatever it named before. A version with an alias is never pruned.

    Parameters
    ----------
    name
        The model, such as mlp-digits.
    alias
        Lower-case letters, digits, - and _, such as production.
    version
        The version's number.
    """
    from layerflow.registry.aliases import set_alias

    set_alias(name, alias, version)
    print(f"{alias} is version {version} of {name}")


@alias.command
def remove(name: str, alias: str, /) -> None:
    """Remove an alias of your own. The version stays.

    Parameters
    ----------
    name
        The model, such as mlp-digits.
    alias
        What was set.
    """
    from layerflow.registry.aliases import remove_alias

    remove_alias(name, alias)
    print(f"{alias} is no alias of {name} any more")
