"""The command line of persons who approve plans."""

from __future__ import annotations

import json

from tests.test_cli import POLICY, Shell, alliance, plan_file, shell

__all__ = ["alliance", "shell"]  # fixtures


def test_a_person_whom_the_policy_names_approves_a_plan(alliance: Shell):
    key = alliance.type("institution", "approver-key", "ann.key").split()[2].rstrip(":")
    alliance.write("policy.toml", f'{POLICY}approvals_needed = 1\n[[approvers]]\nname = "ann"\nkey = "{key}"\n')
    alliance.type("institution", "sign-policy", "lagos", "policy.toml")
    plan_file(alliance)
    plan = alliance.type("coordinator", "propose", "office", "plan.json").split()[1]
    approve = ("institution", "approve", "lagos", plan, "--key", "ann.key", "--person")
    said = alliance.type(*approve, "ann").splitlines()
    assert said[0].startswith("job job-1 of alliance clinics, plan sha256:")
    assert said[-2].split(maxsplit=1) == ["approval", "needs 1; approved by nobody yet; 1 missing, of ann"]
    assert said[-1] == "approved by ann: lagos/approvals/job-1.ann.dsse.json"
    assert alliance.refuse(*approve, "ben").startswith("PolicyRefused: approvers: ben with key sha256:")


def proposed(alliance: Shell) -> str:
    """Sign a policy of lagos and a plan, and keep that in lagos as its process does; return the plan's file."""
    alliance.write("policy.toml", POLICY)
    alliance.type("institution", "sign-policy", "lagos", "policy.toml")
    plan_file(alliance)
    plan = alliance.type("coordinator", "propose", "office", "plan.json").split()[1]
    for name, source in (("plan.dsse.json", plan), ("members.dsse.json", "office/members.dsse.json")):
        kept = alliance.here / "lagos" / "proposals" / "job-1" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes((alliance.here / source).read_bytes())
    return plan


def test_what_was_proposed_is_listed_in_plain_words_and_for_machines(alliance: Shell):
    proposed(alliance)
    said = alliance.type("institution", "plans", "lagos").splitlines()
    assert said[0] == "job-1: approved"
    assert said[-1].split(maxsplit=1) == ["approval", "none is needed: the policy decides alone"]
    (plan,) = json.loads(alliance.type("institution", "plans", "lagos", "--json"))
    assert (plan["job"], plan["state"], plan["facts"]["forbidden"]) == ("job-1", "approved", "")
    assert f"epsilon {plan['facts']['epsilon_pld']} (PLD; " in "\n".join(said)


def test_a_plan_is_declined_by_its_name_and_with_a_reason(alliance: Shell):
    proposed(alliance)
    decline = ("institution", "decline", "lagos", "job-1", "--reason")
    assert alliance.refuse(*decline, "x" * 401) == "BadConfig: reason: 401 characters, must be 1 to 400"
    assert alliance.type(*decline, "not this year") == "job job-1 is declined: not this year\n"
    assert alliance.type("institution", "plans", "lagos") == "job-1: declined: not this year\n"
    approve = ("institution", "approve", "lagos", "job-1", "--person", "ann", "--key", "ann.key")
    assert alliance.refuse(*approve) == "OutOfOrder: job job-1: the plan was declined already"
    unknown = ("institution", "decline", "lagos", "job-9", "--reason", "no")
    assert alliance.refuse(*unknown) == "BadConfig: job: no plan of 'job-9' was proposed here; proposed: job-1"


def test_the_admin_sees_the_queue_and_takes_a_job_out_of_it(alliance: Shell):
    proposed(alliance)
    assert "queued" in alliance.type("coordinator", "jobs", "office")
    assert alliance.type("coordinator", "cancel", "office", "job-1") == (
        "job job-1 is cancelled: cancelled by the alliance's admin\n"
    )
    (job,) = json.loads(alliance.type("coordinator", "jobs", "office", "--json"))
    assert (job["state"], job["reason"]) == ("queued", "cancelled: cancelled by the alliance's admin")
    refused = alliance.refuse("coordinator", "cancel", "office", "job-9")
    assert refused == "OutOfOrder: job job-9 was never proposed"
