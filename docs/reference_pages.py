"""A hook of MkDocs: writes the pages of the API reference, and ends the build where a public name has no docstring.

A page for each folder of `rstg_tf` and `datasets`, its modules in alphabetical order. griffe reads the source without
importing it, so no TensorFlow is needed. Public is what does not begin with an underscore. The methods in KERAS_METHODS
do what Keras says of them, and the class's docstring says what they compute.

    python docs/reference_pages.py        the same check without building the site
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rstg_tf", "datasets")
KERAS_METHODS = ("call", "build", "get_config", "from_config", "compute_output_shape", "compute_mask")


def folders(root: Path = ROOT) -> dict[str, list[str]]:
    """Folder of a package, 'rstg_tf/layers', -> its public modules, 'rstg_tf.layers.nodes', …; the package first."""
    pages: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            folder = path.parent.relative_to(root)
            dotted = ".".join(folder.parts)
            if path.stem == "__init__":
                pages.setdefault(folder.as_posix(), []).insert(0, dotted)
            elif path.stem == "__main__":
                pages.setdefault(folder.as_posix(), []).append(f"{dotted}.__main__")
            elif not path.stem.startswith("_"):
                pages.setdefault(folder.as_posix(), []).append(f"{dotted}.{path.stem}")
    return pages


def undocumented(root: Path = ROOT) -> Iterator[str]:
    """The dotted path of every public module, class, function and method that has no docstring."""
    loader = griffe.GriffeLoader(search_paths=[root])
    for package in PACKAGES:
        yield from _undocumented(loader.load(package))


def _undocumented(parent: griffe.Object) -> Iterator[str]:
    if parent.is_module and not parent.docstring:
        yield parent.path
    for member in parent.members.values():
        if member.is_alias or member.is_attribute or (member.name.startswith("_") and member.name != "__main__"):
            continue
        if member.is_function or member.is_class:
            if not member.docstring and not (parent.is_class and member.name in KERAS_METHODS):
                yield member.path
        if member.is_module or member.is_class:
            yield from _undocumented(member)


def on_files(files, config):
    """Called by MkDocs: adds the pages to the site."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    missing = list(undocumented())
    if missing:
        raise PluginError(f"public names without a docstring: {', '.join(missing)}")
    pages = folders()
    for folder, modules in pages.items():
        parts = [f"# {folder}/", *(f"::: {module}" for module in modules)]
        files.append(File.generated(config, f"reference/{folder}.md", content="\n\n".join(parts) + "\n"))
    lines = [f"- [`{folder}/`]({folder}.md)" for folder in pages]
    text = (
        "# Reference\n\nEvery public name, from its docstring, a page for each folder.\nWhere a folder stands in a "
        "clip's way: [how the code is laid out](../code/layout.md).\n\n" + "\n".join(lines) + "\n"
    )
    files.append(File.generated(config, "reference/index.md", content=text))
    links = [{f"{folder}/": f"reference/{folder}.md"} for folder in pages]
    config.nav[-1] = {"Reference": ["reference/index.md", *links]}
    return files


if __name__ == "__main__":
    names = list(undocumented())
    print(*names, sep="\n", end="\n" if names else "")
    sys.exit(1 if names else 0)
