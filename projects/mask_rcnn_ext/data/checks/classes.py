"""Categories: each has an id and a name, and objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .facts import Facts
from .findings import ERROR, WARNING, Defect, show


def unnamed(facts: Facts) -> Iterator[Defect]:
    """Categories that lack a name; ids are looked at in `ids`."""
    categories = facts.table.categories

    def words(row: int) -> str:
        category = categories[row]
        if "name" not in category:
            lacking = "id and name" if "id" not in category else "name"
            return f"category {show(category.get('id', f'number {row}'))} lacks {lacking}"
        return f"category {show(category.get('id'))} has the name {show(category['name'])}"

    names = [category.get("name") for category in categories]
    yield facts.categories(
        "category-name",
        ERROR,
        np.array([not isinstance(name, str) or not name.strip() for name in names], bool),
        words,
        'Write {"id": 1, "name": "cat"}.',
    )


def repeated_names(facts: Facts) -> Iterator[Defect]:
    """Two classes of one name cannot be told apart in any result."""
    first: dict[str, int] = {}
    rows = []
    for row, category in enumerate(facts.table.categories):
        name = category.get("name")
        if isinstance(name, str) and first.setdefault(name.strip().lower(), row) != row:
            rows.append(row)

    def words(row: int) -> str:
        name = facts.table.categories[row]["name"]
        other = facts.table.categories[first[name.strip().lower()]]
        return (
            f"category {show(facts.table.categories[row].get('id'))} is called {show(name)}, as "
            f"category {show(other.get('id'))} is"
        )

    yield facts.categories(
        "repeated-class-name",
        WARNING,
        np.array(rows, np.int64),
        words,
        "They are trained as two classes: merge them (classes in the data set's YAML), or rename.",
    )


def classes_without_objects(facts: Facts) -> Iterator[Defect]:
    """Classes that nothing can be learned of, and whose AP is nan."""
    table = facts.table
    if not table.num_annotations:
        return
    counts = np.bincount(
        table.category_of[facts.is_instance & facts.known_category],
        minlength=len(table.categories),
    )
    crowds = np.bincount(
        table.category_of[facts.known_category & (table.crowd == 1)],
        minlength=len(table.categories),
    )

    def words(row: int) -> str:
        category = table.categories[row]
        rest = f", only {crowds[row]} crowds" if crowds[row] else ""
        who = f"class {show(category.get('name'))} (id {show(category.get('id'))})"
        return f"{who} has no object{rest}"

    yield facts.categories(
        "class-without-objects",
        WARNING,
        counts == 0,
        words,
        "It is not learned, and its AP is nan.",
    )


CHECKS = (unnamed, repeated_names, classes_without_objects)
