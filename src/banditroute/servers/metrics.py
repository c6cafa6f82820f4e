"""What `Router.stats` counts: one line for each number, for exporters, dashboards and the documents."""

from typing import NamedTuple

__all__ = ["METRICS", "Metric", "metric", "table"]


class Metric(NamedTuple):
    """One number of `Router.stats`: its name there, whether it only grows, and what it means.

    Examples
    --------
    >>> metric("decisions").counter
    True
    """

    name: str
    counter: bool
    help: str


def _metrics(counter: bool, text: str) -> list[Metric]:
    lines = (line.strip().partition(": ") for line in text.strip().splitlines())
    return [Metric(name, counter, said) for name, _, said in lines]


# Names of numbers inside a group begin with the label of the group: arm_decisions is stats()["arms"][...]["decisions"].
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        *_metrics(True, """
            decisions: Requests that were answered with an arm.
            hits: Decisions whose arm was resident.
            learned: Rewards that were learned.
            expired: Decisions that had no feedback within the time limit.
            cancelled: Decisions that were withdrawn: never served, failed or rerouted.
            late: Answers to decisions that had expired or were withdrawn.
            duplicates: Answers to decisions that were answered already.
            dropped: Answers that taught nothing: their arm is gone or in quarantine.
            forced: Decisions whose arm the residency controller chose, to explore it.
            page_ins: Arms that were made resident.
            passed_through: Requests whose arm was loaded for them alone.
            load_price: Price of making arms resident, reward units.
            spend: Cost of the calls whose rewards were learned, as it was told with them.
            plan_failures: Residency plans that raised; the old set served on.
            load_failures: Adapters that the server did not load.
            loads: Adapters that the server loaded.
            evictions: Adapters that the server unloaded.
            eviction_failures: Adapters that the server did not unload.
            observation_failures: Times the server did not tell which adapters it holds.
            observations: Times the server was asked which adapters it holds.
            pin_failures: Adapters that the server did not pin.
            touch_failures: Adapters that the server did not keep in use when asked to.
            timeouts: Calls to the server that took too long.
            callback_errors: Exceptions of terms and listeners; the requests stood.
            clock_errors: Times the clock gave no number.
            relaxed: Requests for which a soft term was passed over, because it left no arm.
            journal_records: Records that the journal took.
            journal_dropped: Records that were dropped because the disk refused for too long; until a checkpoint.
            journal_errors: Errors of the disk, and checkpoints of a state that cannot be stored.
            checkpoints: Snapshots that were written into the directory of the journal.
            syncs: Rounds in which evidence was exchanged with the other replicas.
            store_errors: Rounds that failed because the store did.
            foreign: Answers learned here to decisions of other workers.
            unshared: Decisions that could not be put into the store.
            unknown_answers: Answers to decisions that no worker knew.
            parts_refused: Evidence of other replicas that disagrees or is damaged, and was not taken.
            fenced: Times another process was found under the name of this replica.
            replica_lost: Evidence of other replicas that is gone from the store.
            heard: Requests of other workers that the residency controller was shown.
            residency_errors: Rounds in which residency could not be shared because the store failed.
            residency_refused: Requests of other workers that were damaged or of another shape.
            bases_dropped: Sums in the store that could not be reconciled after it was flushed.
            arm_decisions: Decisions for the arm.
            arm_learned: Rewards learned of the arm.
            source_taken: Rewards of the source that were taken.
            source_refused: Rewards of the source that were out of its range.
            source_clipped: Rewards of the source that were cut to its range.
            source_capped: Rewards of the source that came faster than its rate.
            door_decisions: Attempts of LiteLLM that were decided here.
            door_answers: Attempts of LiteLLM that were answered, their reward learned or still to come.
            door_cancels: Attempts of LiteLLM that failed and were cancelled.
            door_unknown: Events of LiteLLM about attempts that were not decided here.
            door_unrouted: Requests that LiteLLM served without a decision, for want of a context say.
            door_refused: Rewards and failures of attempts that the Router did not take.
            door_sync: Synchronous calls of LiteLLM, which run no hooks.
        """),
        *_metrics(False, """
            pending: Decisions that await feedback.
            epoch: Residency plans so far.
            hit_rate: Share of decisions whose arm was resident.
            plans_residency: 1 for the worker that plans for all of its server.
            residency_disagrees: 1 where the worker that plans has another capacity, other sizes or pins.
            desired: Adapters that should be loaded.
            actual: Adapters that the server confirmed.
            blocked: Adapters whose loading is put off because it failed.
            hanging_calls: Calls to the server that have not come back.
            journal_moved: 1 where the path of the journal leads to another folder by now.
            generation: Number of the last snapshot.
            replicas: Replicas seen in the store, this one included.
            deferred: Answers that wait for the store.
            letters: Answers on their way to the workers that decided.
            arm_mean_reward: Mean of the rewards learned of the arm.
            arm_quarantined: 1 while the arm is in quarantine.
        """),
    ]
}  # fmt: skip


def metric(name: str) -> Metric:
    """Return what is known of a number; one that nobody described is taken for one that may also fall.

    Examples
    --------
    >>> metric("pending").help
    'Decisions that await feedback.'
    """
    return METRICS.get(name) or Metric(name, False, f"{name} of Router.stats.")


def table() -> str:
    """Return all of them as a table in Markdown.

    Examples
    --------
    >>> print(table().splitlines()[2])
    | `banditroute_decisions_total` | Requests that were answered with an arm. |
    """
    rows = [
        f"| `banditroute_{one.name}{'_total' if one.counter else ''}` | {one.help} |"
        for one in METRICS.values()
    ]
    return "\n".join(["| metric | what it counts |", "| :-- | :-- |", *rows])
