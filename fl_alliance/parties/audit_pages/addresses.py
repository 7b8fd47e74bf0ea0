"""The addresses of the pages. Names in them are names of the protocol: lower-case letters, digits, hyphens."""

from __future__ import annotations

from fl_alliance.parties.audit_pages.evidence import House

OVERVIEW = "/"


def of_house(house: House) -> str:
    """Return the address of a house's page."""
    return "/institution/{}/{}".format(*house.name)


def of_ledger(house: House, first: int) -> str:
    """Return the address of the house's page with the entries from `first` on."""
    return f"{of_house(house)}?first={first}#ledger"


def of_entry(house: House, sequence: int) -> str:
    """Return the address of a ledger entry."""
    return f"{of_house(house)}/entry/{sequence}"


def of_job(name: tuple[str, str]) -> str:
    """Return the address of a job's page."""
    return "/job/{}/{}".format(*name)


def of_what_if(house: House) -> str:
    """Return the address of the question what one more job would cost a house."""
    return "/what-if/{}/{}".format(*house.name)


def of_input(number: int) -> str:
    """Return the address of what the verifier found in an input."""
    return f"/evidence/{number}"
