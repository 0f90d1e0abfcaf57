"""`zfcuda study`: the reports of several runs in one page."""

from __future__ import annotations

import argparse

from ..report.study import join
from . import common
from .common import Commands
from .ranks import alone


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "study",
        help="join the reports of several runs into one page",
        description="Joins the reports that other commands left in their --out directories into one page.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("runs", nargs="+", metavar="DIR", help="what other commands got as --out")
    parser.add_argument("--title", default="A study", help="of the page")
    parser.add_argument(
        "--out", metavar="DIR", default="zfcuda-study", help="where the page goes (default: %(default)s)"
    )


@alone
def run(arguments: argparse.Namespace) -> int:
    print(f"report: {join(arguments.runs, common.output(arguments), arguments.title).resolve()}")
    return 0
