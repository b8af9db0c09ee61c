"""What a turn may spend, changed while the task lives. Pure."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.task import AnyTaskEvent, BudgetSet, SetBudget


def set_budget(task: Task, command: SetBudget) -> tuple[AnyTaskEvent, ...]:
    return (BudgetSet(budget=command.budget.over(task.budget)),)
