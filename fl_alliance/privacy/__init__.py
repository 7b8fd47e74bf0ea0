"""What may be spent and what was: events, accountant, ledger rules, policy, report. No torch."""
