"""What a command leads to. Pure: the state, the command and the time come in, events or a rejection come out."""

from services.scheduler.decide.archive import put_away
from services.scheduler.decide.attempts import claim, lose_lease
from services.scheduler.decide.base import Limits, Rejected
from services.scheduler.decide.days import go_on, is_short, may_go_on, terms_of, time_of_claim, wait_for_day
from services.scheduler.decide.folding import fold_log
from services.scheduler.decide.schedules import end_unsent, owed
from services.scheduler.decide.schedules import timers as user_timers
from services.scheduler.decide.task import answer, reject
from services.scheduler.decide.timers import timers
from services.scheduler.decide.user import answer_user, reject_user

__all__ = [
    "Limits",
    "Rejected",
    "answer",
    "answer_user",
    "claim",
    "end_unsent",
    "fold_log",
    "go_on",
    "is_short",
    "lose_lease",
    "may_go_on",
    "owed",
    "put_away",
    "reject",
    "reject_user",
    "terms_of",
    "time_of_claim",
    "timers",
    "user_timers",
    "wait_for_day",
]
