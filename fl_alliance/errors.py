"""Every exception of the alliance, as one tree.

    AllianceError
    |-- BadInput                    a person gave something wrong: a file, a setting, a plan
    |   |-- BadConfig               a configuration file or a command-line value
    |   |-- BadRecords              the private data file: missing column, null unit, empty file
    |   |-- BadModel                the model folder: pickle, wrong digest, unknown architecture
    |   `-- BadPlan                 a training plan that cannot be run or summed exactly
    |-- MalformedMessage            bytes from outside that are not a canonical, valid message
    |-- NotAuthentic                a signature, signer, label or digest does not match
    |   `-- MembersRolledBack       a list of members that is not the newest that was shown here
    |-- OutOfOrder                  an authentic message that the state does not await
    |-- PolicyRefused               the institution's own policy forbids it
    |   |-- BudgetExceeded          it would spend more privacy budget than a cap allows
    |   |-- ApprovalsMissing        persons whom it names have not approved the plan yet
    |   `-- PlanDeclined            the institution declined the plan
    |-- LedgerBroken                the privacy ledger fails its own verification
    |   `-- LedgerRolledBack        the ledger is older than a head that was seen outside
    |-- LogBroken                   the coordinator's transparency log does not hold what it must
    |   |-- LogForked               its history is not the one that was seen before, or that others saw
    |   `-- NotInLog                it lacks what the coordinator relies on
    |-- SumRefused                  what should be the sum is not the sum of the signed uploads
    |   |-- BadUpload               one member's upload can't be added, the others' can
    |   |-- WrongCipher             made with other parameters, size or library version
    |   `-- OutOfRange              a decoded digit or coordinate outside its range
    |-- SecretUnavailable           fewer shares than the threshold, or a share that does not open
    |-- TrainingFailed              a process that shares a round's training died, hung or is not ours
    |-- StoreFailed                 journal, blob store or key file cannot be used
    |   |-- BlobMissing             the store answers, and there is no such blob
    |   |-- StoreTaken              another process serves the database
    |   `-- StoreTooNew             a newer program has changed the database's tables
    |-- LinkFailed                  the transport could not carry the bytes
    |   |-- ClockSkew               the clock here and the coordinator's differ too much to speak with each other
    |   |-- MemberUnknown           the transport knows no such member: never admitted, or struck off
    |   `-- CertificateRefused      a TLS certificate has expired or was revoked
    |-- JoinRefused                 the join door was asked for what it may not give
    |   |-- JoinCodeWrong           no invitation has this name and secret
    |   |-- JoinCodeExpired         it was not used in time
    |   |-- JoinCodeUsed            it was used before, with other keys
    |   |-- RootsDiffer             the roots shown there are not those of the join code
    |   |-- NotAMember              removed, never admitted, or under another key
    |   `-- TooManyCalls            more calls from one address than the door answers
    |-- JobAborted                  the job ended with a stated reason
    `-- EvidenceRefused             an auditor's step failed; names the file and the step

A message names the field, the value seen and what would be right. Private values never appear in one.
"""

from __future__ import annotations

import re


class AllianceError(Exception):
    """Root of the tree. Catch this at the border of a process, and nothing wider."""


class BadInput(AllianceError):
    """A person gave something wrong."""


class BadConfig(BadInput):
    """A configuration file or a command-line value is wrong."""


class BadRecords(BadInput):
    """The private data file can't be used as it is."""


class BadModel(BadInput):
    """The model folder can't be trusted or used."""


class BadPlan(BadInput):
    """The training plan can't be run."""


class MalformedMessage(AllianceError):
    """Foreign bytes are not a canonical, valid message."""


class NotAuthentic(AllianceError):
    """A signature, signer, label or digest does not match."""


class MembersRolledBack(NotAuthentic):
    """A list of members is older than the newest that was shown here, or another one of the same serial."""


class OutOfOrder(AllianceError):
    """An authentic message that the present state does not await."""


class PolicyRefused(AllianceError):
    """The institution's own policy forbids it."""


class BudgetExceeded(PolicyRefused):
    """It would spend more privacy budget than a cap of the policy allows."""


class ApprovalsMissing(PolicyRefused):
    """Persons whom the policy names have not approved the plan yet; they still may."""


class PlanDeclined(PolicyRefused):
    """The institution declined the plan."""


class LedgerBroken(AllianceError):
    """The privacy ledger fails its own verification."""


class LedgerRolledBack(LedgerBroken):
    """The local ledger is older than a head that was seen outside the house."""


class LogBroken(AllianceError):
    """The coordinator's transparency log does not hold what it must."""


class LogForked(LogBroken):
    """The log's history is not the one that was seen before, or that others saw."""


class NotInLog(LogBroken):
    """The log lacks what the coordinator relies on."""


class SumRefused(AllianceError):
    """What should be the sum is not the sum of the signed uploads."""


class BadUpload(SumRefused):
    """One member's upload can't be added; the others' can."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"the upload of {member}: {reason}")
        self.member, self.reason = member, reason


class WrongCipher(SumRefused):
    """A ciphertext was made with other parameters, another size or another library version."""


class OutOfRange(SumRefused):
    """A decoded digit or a coordinate lies outside its range."""


class SecretUnavailable(AllianceError):
    """Fewer shares than the threshold, or a share that does not open."""


class TrainingFailed(AllianceError):
    """A process that shares a round's training died, hung or is not one that this institution started."""


class StoreFailed(AllianceError):
    """The journal, the blob store or a key file can't be used."""


class BlobMissing(StoreFailed):
    """The store can be used, and the blob is not in it."""


class StoreTaken(StoreFailed):
    """Another process serves the database."""


class StoreTooNew(StoreFailed):
    """A newer program has changed the database's tables."""


class LinkFailed(AllianceError):
    """The transport could not carry the bytes."""


class ClockSkew(LinkFailed):
    """The clock here and the coordinator's differ too much to speak with each other."""


class MemberUnknown(LinkFailed):
    """The transport knows no such member: never admitted, or struck off."""


class CertificateRefused(LinkFailed):
    """A TLS certificate has expired or was revoked."""


class JoinRefused(AllianceError):
    """The join door was asked for what it may not give."""


class JoinCodeWrong(JoinRefused):
    """No invitation has this name and secret."""


class JoinCodeExpired(JoinRefused):
    """The invitation was not used in time."""


class JoinCodeUsed(JoinRefused):
    """The invitation was used before, with other keys."""


class RootsDiffer(JoinRefused):
    """The roots that the door shows are not those whose fingerprint the join code has."""


class NotAMember(JoinRefused):
    """Who asks was removed, was never admitted, or has another key."""


class TooManyCalls(JoinRefused):
    """More calls came from one address than the door answers."""


class JobAborted(AllianceError):
    """The job ended with a stated reason."""


class EvidenceRefused(AllianceError):
    """An auditor's step failed; the text is "step N, FILE: why"."""

    @property
    def parts(self) -> tuple[int, str, str]:
        """Number of the step, file, and why; 0 and an empty file where the text names none."""
        found = re.fullmatch(r"step (\d+), (.*?): (.*)", str(self), re.DOTALL)
        return (int(found[1]), found[2], found[3]) if found else (0, "", str(self))
