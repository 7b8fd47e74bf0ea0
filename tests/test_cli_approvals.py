"""The command line of persons who approve plans."""

from __future__ import annotations

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
    assert said[0].startswith("job job-1 of alliance clinics with berlin, lagos, lima: 2 rounds, epsilon up to 8 at ")
    assert said[1] == "approved by ann: lagos/approvals/job-1.ann.dsse.json"
    assert alliance.refuse(*approve, "ben").startswith("PolicyRefused: approvers: ben with key sha256:")
