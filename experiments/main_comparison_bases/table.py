"""The tables of the comparison over several bases: those of any sweep, and what the bases' cards say.

python experiments/tables.py run main_comparison_bases    # its commands, then these tables
"""

from __future__ import annotations

from collections.abc import Sequence

from dlma.report import tables as sweep_tables
from dlma.sweep.results import SEVERAL_BASES, Result, bases
from dlma.sweep.settings import Setting
from experiments import base_cards, tables

CHOSEN = tables.table_of("main_comparison_bases")


def results(settings: Sequence[Setting]) -> list[Result]:
    """The values on each base and over all of them, and what each base's card says."""
    cards = [line for row in settings if row.arm == "base" for line in base_cards.results(row)]
    return tables.of_table(CHOSEN, settings) + cards


def render(found: Sequence[Result]) -> str:
    measured = [one for one in found if one.method != base_cards.CARD]
    single = [base for base in bases(measured) if SEVERAL_BASES not in base]
    return base_cards.table(found, single) + "\n\n" + sweep_tables.markdown(measured, show=CHOSEN.show).rstrip("\n")
