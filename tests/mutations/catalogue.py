"""Every mutation: which lines of the source go, and which tests must go red for it.

A text that is no longer there, or is there twice, fails `test_catalogue` and `make mutations`: whoever changes such a
line moves the mutation along with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTATIONS", "ROOT", "Edit", "Mutation", "Stale"]

ROOT = Path(__file__).parents[2]


class Stale(Exception):
    """A mutation does not fit the source any more."""


@dataclass(frozen=True)
class Edit:
    """`old` stands exactly once in the file at `path`, and is replaced by `new`."""

    path: str
    old: str
    new: str

    def applied(self, root: Path) -> str:
        """The file's text with the edit in it.

        Raises
        ------
        Stale
            `old` does not stand there exactly once.
        """
        file = root / self.path
        found = file.read_text().count(self.old) if file.exists() else 0
        if found != 1:
            raise Stale(f"{self.path} holds, {found} times instead of once:\n{self.old}")
        return file.read_text().replace(self.old, self.new)


@dataclass(frozen=True)
class Mutation:
    """What is removed, how, and the tests of which each must fail; of a parametrised one, any of its cases."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


_SESSION = "tests/behaviours/test_shard_session.py::"
_STORE = "tests/behaviours/test_state_store.py::"
_PERMISSIONS = "tests/integration/test_permissions.py::"
_FUNCTIONS = "tests/integration/test_stack_functions.py::"
_KCL_SHARD = "tests/behaviours/test_kcl_shard.py::"
_KCL_DIALOGUE = "tests/unit/hosts/test_kcl_dialogue.py::"
_KCL_HOST = "tests/unit/hosts/test_kcl_host.py::"
_KCL_LEASES = "tests/unit/hosts/test_kcl_leases.py::"
_KCL_INSTALLATION = "tests/unit/hosts/test_kcl_installation.py::"
_PACKAGE = "tests/unit/infra/test_package.py::"
_INCIDENTS = "tests/integration/test_incidents.py::"
_DYNAMODB = "tests/integration/test_dynamodb_state_store.py::"
_RECEIVERS = "tests/behaviours/test_receivers.py::"
_DECODERS = "tests/behaviours/test_decoders.py::"
_ENGINE = "tests/unit/core/test_engine.py::"
_ENGINES = "tests/properties/test_engine.py::"
_MEASURES = "tests/properties/test_measures.py::"
_MEASURED = "tests/properties/test_engine_measures.py::"
_KEYS = "tests/properties/test_keys.py::"
_DEDUPE = "tests/properties/test_dedupe.py::"
_HANDED_OVER = "tests/unit/core/test_handover.py::"
_AUDIT = "tests/behaviours/test_audit_resharded.py::"
_RESHARDING = "tests/behaviours/test_resharding.py::"
_PRODUCER = "tests/unit/producers/test_producer_core.py::"
_WATERMARK = "tests/unit/core/test_watermark.py::"
_THRESHOLDS = "tests/unit/core/test_thresholds.py::"
_HISTORIES = "tests/simulation/test_histories.py::test_every_invariant_holds_where_"
# One batch of schedules each.
_APART = _HISTORIES + "shards_that_stand_apart_are_merged[3-243]"
_BACKLOG = _HISTORIES + "a_backlog_follows_idle_time[6-486]"
_BURST = _HISTORIES + "a_record_is_stuck_in_a_burst[9-489]"
_POLLER = "tests/unit/infra/event_source/test_poller.py::"
_LAMBDA = "tests/behaviours/test_lambda_host.py::"
_LAMBDA_FUNCTIONS = "tests/integration/test_lambda_functions.py::"
_CHILD_STARTS = "tests/behaviours/test_child_starts.py::"
_POLLER_EDGES = "tests/unit/infra/event_source/test_edges.py::"

MUTATIONS = (
    Mutation(
        "claim and fencing, in memory",
        (
            Edit(
                "processors/commit/memory.py",
                "if now is None or (now.owner, now.claim_version, now.sealed)"
                " != (row.owner, row.claim_version, written.sealed):",
                "if now is None:",
            ),
        ),
        (
            _SESSION + "test_a_zombies_commit_is_fenced_and_leaves_no_delivery",
            _STORE + "test_an_owner_is_fenced_by_a_later_claim",
        ),
    ),
    Mutation(
        "claim and fencing, in DynamoDB",
        (
            Edit(
                "processors/commit/dynamodb.py",
                'ConditionExpression=f"{is_held} AND #claim_version = :held_version AND #sealed = :sealed",',
                'ConditionExpression=f"{is_held} OR #claim_version <> :held_version OR #sealed = :sealed",',
            ),
        ),
        (
            _STORE + "test_an_owner_is_fenced_by_a_later_claim",
            _DYNAMODB + "test_a_fenced_owner_deletes_nothing_and_leaves_its_own_object_to_the_heir",
        ),
    ),
    Mutation(
        "position skip",
        (
            Edit(
                "processors/core/engine.py",
                "self._decoder.decode(records, self._shard, self._position)",
                "self._decoder.decode(records, self._shard, None)",
            ),
        ),
        (
            _ENGINES + "test_redelivered_records_change_nothing_but_their_counter",
            _ENGINE + "test_an_aggregate_that_is_delivered_again_from_its_middle_is_counted_once",
        ),
    ),
    Mutation(
        "anti-replay window",
        (
            Edit(
                "processors/core/anti_replay.py",
                "in_window = ~below & (_repeated(key) | self._bits(slots, group, sequence, before))",
                "in_window = ~below & _repeated(key)",
            ),
        ),
        (_DEDUPE + "test_batches_are_judged_as_if_event_by_event",),
    ),
    Mutation(
        "joining of bitmaps at a merge",
        (
            Edit(
                "processors/core/anti_replay.py",
                "self._words[np.repeat(self._first_word[mine], count) + offset] |= from_words",
                "del from_words",
            ),
        ),
        (
            _DEDUPE + "test_a_joined_window_keeps_what_the_lower_one_has_seen",
            _DEDUPE + "test_the_child_of_a_merge_knows_what_either_parent_has_seen",
            _APART,
        ),
    ),
    Mutation(
        "floors",
        (
            Edit(
                "processors/core/watermark.py",
                "closed_to_ms = np.maximum(closed_to_ms, floors_ms)",
                "pass",
            ),
        ),
        (
            _HANDED_OVER + "test_a_closed_window_without_a_pane_is_not_opened_anew",
            _HANDED_OVER + "test_a_crossing_below_a_floor_is_taken_back",
            _AUDIT + "test_a_late_event_below_a_floor_is_in_the_late_table",
            _APART,
        ),
    ),
    Mutation(
        "sealing",
        (Edit("processors/commit/ancestry.py", "return self._store.seal(row)", "return row"),),
        (
            _RESHARDING + "test_a_parent_that_moves_while_it_is_looked_at_is_not_sealed",
            _RESHARDING + "test_a_zombie_owner_commits_nothing_after_the_seal_and_delivers_nothing",
        ),
    ),
    Mutation(
        "whole-aggregate check",
        (
            Edit(
                "processors/core/unpack.py",
                "is_misrouted = not check.holds_all(aggregate)",
                "is_misrouted = False",
            ),
        ),
        (_DECODERS + "test_a_misrouted_aggregate_of_ours_is_ignored_whole",),
    ),
    Mutation(
        "resend of the whole aggregate",
        (
            Edit(
                "producers/client/exchange.py",
                "                misrouted += record.events  # every consumer ignores the whole aggregate\n",
                "                for place, event in enumerate(record.events):\n"
                "                    if hash_key(event.partition_key) in hash_range:\n"
                "                        at = Position(sequence_number, place)\n"
                "                        self._outstanding.acknowledge(event, shard_id, at)\n"
                "                    else:\n"
                "                        misrouted.append(event)\n",
            ),
        ),
        (_PRODUCER + "test_misrouted_aggregates_are_sent_again_whole",),
    ),
    Mutation(
        "order of puts, where an event of a record is overdue",
        (
            Edit(
                "producers/client/exchange.py",
                "            self._stages.reroute(others, now_ms)\n",
                "            self._stages.place_again(others, now_ms)\n",
            ),
        ),
        (_PRODUCER + "test_what_was_in_a_record_with_an_overdue_event_stays_before_what_was_put_later",),
    ),
    Mutation(
        "order of puts, where a listing is older than the one before",
        (
            Edit(
                "producers/client/stages.py",
                "        self.map = ShardMap(shards, self.map)\n",
                "        self.map = ShardMap(shards)\n",
            ),
        ),
        (_PRODUCER + "test_a_listing_older_than_the_one_before_lets_nothing_overtake_what_is_on_its_way",),
    ),
    Mutation(
        "W's back-pressure",
        (
            Edit(
                "producers/client/source_log.py",
                "return self.next_sequence - self._oldest < self._window",
                "return True",
            ),
        ),
        (
            _PRODUCER + "test_never_more_than_w_sequences_between_the_oldest_unacknowledged_and_the_newest",
            _PRODUCER + "test_whatever_happens_nothing_acknowledged_is_lost_and_w_holds",
            _BURST,
        ),
    ),
    Mutation(
        "place in W of a given-up event",
        (
            Edit(
                "producers/client/outstanding.py",
                "        if event.doubtful_ms < 0:\n            log.release(event.sequence)\n",
                "        if True:\n            log.release(event.sequence)\n",
            ),
        ),
        (_PRODUCER + "test_an_unknown_event_holds_its_place_until_it_can_no_longer_land", _BURST),
    ),
    Mutation(
        "outbox",
        (
            Edit(
                "processors/commit/session.py",
                "Snapshot(self._engine.snapshot(), outbox, self._gaps)",
                "Snapshot(self._engine.snapshot(), Outbox(), self._gaps)",
            ),
        ),
        (
            _SESSION + "test_a_crash_before_or_after_any_step_loses_nothing_and_doubles_nothing",
            _SESSION + "test_what_a_crash_left_in_the_outbox_is_delivered_again_under_the_same_names",
        ),
    ),
    Mutation(
        "delivery after the snapshot",
        (
            Edit(
                "processors/commit/session.py",
                "            self._begin_write()\n            self._finish_write()\n",
                "            self._begin_write()\n"
                "            self._outbox.replace(self._write.outbox)\n"
                "            self._outbox.deliver()\n"
                "            self._finish_write()\n",
            ),
        ),
        (
            _SESSION + "test_nothing_leaves_before_its_snapshot_is_saved",
            _SESSION + "test_a_zombies_commit_is_fenced_and_leaves_no_delivery",
        ),
    ),
    Mutation(
        "revision condition",
        (
            Edit(
                "processors/commit/served_panes.py",
                '"attribute_not_exists(#revision) OR #revision < :revision"',
                '"attribute_not_exists(#revision) OR #revision <> :revision"',
            ),
        ),
        (
            _RECEIVERS + "test_a_higher_revision_replaces_a_lower_one_and_never_the_other_way",
            _RECEIVERS + "test_a_tombstone_hides_its_pane_and_every_earlier_revision",
        ),
    ),
    Mutation(
        "failed events listed by the commit",
        (
            Edit(
                "processors/commit/commit_objects.py",
                "failed_object=failed.name if failed else None",
                "failed_object=None",
            ),
        ),
        (_SESSION + "test_failed_events_count_only_when_a_commit_lists_them",),
    ),
    Mutation(
        "event-by-event watermark",
        (
            Edit(
                "processors/core/watermark.py",
                "highest = np.maximum(np.maximum.accumulate(times_ms), self._highest_ms)",
                "highest = np.full(len(times_ms), max(int(times_ms.max()), self._highest_ms))",
            ),
        ),
        (
            _ENGINES + "test_cutting_the_stream_into_batches_differently_gives_identical_bytes_of_panes_and_effects",
            _WATERMARK + "test_it_is_the_highest_event_time_less_the_bound",
        ),
    ),
    Mutation(
        "cap on ticks",
        (
            Edit(
                "processors/core/watermark.py",
                "self._raise(min(self._highest_ms - self._bound_ms + idle_ms, self._end_of_latest()))",
                "self._raise(self._highest_ms - self._bound_ms + idle_ms)",
            ),
        ),
        (
            _WATERMARK + "test_a_tick_raises_to_the_end_of_the_window_of_the_newest_event_at_most",
            _ENGINES + "test_the_engine_agrees_with_the_model",
            _BACKLOG,
        ),
    ),
    Mutation(
        "re-run of the threshold machine",
        (
            Edit(
                "processors/core/thresholds.py",
                "        for slot, truth in zip(slots[split:].tolist(),"
                " self._slots.column(self._truth)[slots[split:]], strict=True):\n",
                "        for slot, truth in zip(slots[split : split + 1].tolist(),"
                " self._slots.column(self._truth)[slots[split : split + 1]], strict=True):\n",
            ),
        ),
        (
            _THRESHOLDS + "test_one_correction_moves_all_later_crossings_with_the_state_after_all_of_it",
            _ENGINES + "test_raises_less_corrected_clears_are_the_crossings_of_the_final_panes",
        ),
    ),
    Mutation(
        "take-back of a vanished clear",
        (
            Edit(
                "processors/core/thresholds.py",
                "            if old:\n                state = new",
                "            if old == _RAISE:\n                state = new",
            ),
        ),
        (
            _THRESHOLDS + "test_a_clear_that_vanishes_is_taken_back_by_a_raise",
            _ENGINES + "test_raises_less_corrected_clears_are_the_crossings_of_the_final_panes",
        ),
    ),
    Mutation(
        "functions' permissions, one missing",
        (Edit("infra/template.yaml", "                  - kinesis:PutRecord\n", ""),),
        (_PERMISSIONS + "test_no_call_lacks_its_permission",),
    ),
    Mutation(
        "functions' permissions, one too many",
        (
            Edit(
                "infra/template.yaml",
                "                  - lambda:ListEventSourceMappings\n",
                "                  - lambda:ListEventSourceMappings\n                  - lambda:GetFunction\n",
            ),
        ),
        (_PERMISSIONS + "test_no_permission_is_there_for_nothing",),
    ),
    Mutation(
        "local stack, no function outlives it",
        (Edit("infra/local/stack.py", "    end_functions(info.folder)\n", ""),),
        (_FUNCTIONS + "test_no_function_outlives_the_stack_not_even_one_whose_ministack_was_killed",),
    ),
    Mutation(
        "functions' package, the size that Lambda takes",
        (Edit("infra/packaging/archive.py", "    if size > limit:\n", "    if False:\n"),),
        (_PACKAGE + "test_a_package_that_lambda_would_refuse_is_refused_with_its_largest_parts",),
    ),
    Mutation(
        "functions' package, named by its contents",
        (Edit("infra/packaging/archive.py", "sha256(body).hexdigest()", "len(body)"),),
        (_PACKAGE + "test_other_contents_give_another_name",),
    ),
    Mutation(
        "event source poller, one batch in flight",
        (
            Edit(
                "infra/local/event_source/lane.py",
                "        self._is_busy = True\n        payload = payload_of(batch.records)",
                "        payload = payload_of(batch.records)",
            ),
        ),
        (_POLLER + "test_one_batch_of_a_shard_is_in_flight_at_a_time",),
    ),
    Mutation(
        "event source poller, parents first",
        (
            Edit(
                "infra/local/event_source/stream.py",
                "if all(parent in self._finished or parent not in self._starts for parent in shard.parents):",
                "if True:",
            ),
        ),
        (
            _POLLER + "test_children_come_after_their_parents",
            _POLLER + "test_a_child_waits_as_long_as_its_parent_is_blocked",
        ),
    ),
    Mutation(
        "event source poller, the rest of a partial answer",
        (
            Edit(
                "infra/local/event_source/lane.py",
                "        done = numbers[:failed]\n",
                "        done = numbers\n",
            ),
        ),
        (_POLLER + "test_no_record_is_skipped_and_no_key_is_overtaken",),
    ),
    Mutation(
        "event source poller, LATEST after an outage",
        (
            Edit(
                "infra/local/event_source/reader.py",
                "timestamp_ms = self._latest_since_ms.get(request.shard_id)",
                "timestamp_ms = None",
            ),
        ),
        (_POLLER_EDGES + "test_what_arrives_while_latest_is_lost_is_not_skipped",),
    ),
    Mutation(
        "measures, variance relative to the first value",
        (
            Edit(
                "processors/core/moments.py",
                "[slots[is_first]] = values[is_first]",
                "[slots[is_first]] = 0.0",
            ),
        ),
        (_MEASURES + "test_the_variance_of_many_values_keeps_13_digits",),
    ),
    Mutation(
        "measures, variance's blocks end by the number of values",
        (
            Edit(
                "processors/core/moments.py",
                "beyond = running[slots] > self._capacity(slots)",
                "beyond = np.zeros(len(slots), dtype=np.bool_)",
            ),
        ),
        (
            _MEASURES + "test_how_values_are_cut_into_batches_changes_no_byte",
            _MEASURED + "test_how_the_stream_is_cut_changes_no_measure",
        ),
    ),
    Mutation(
        "measures, first and last, ties go to the source",
        (
            Edit(
                "processors/core/ends.py",
                "self._slots.column(later)[moved] = start",
                "del start",
            ),
        ),
        (_MEASURES + "test_the_first_and_the_last_are_those_by_time_source_and_sequence",),
    ),
    Mutation(
        "measures, registers merge by maximum",
        (
            Edit(
                "processors/core/distinct.py",
                "np.maximum.at(self._pages.flat, places, cells)",
                "self._pages.flat[places] = cells",
            ),
        ),
        (_MEASURES + "test_sketches_of_many_values_merge_into_that_of_all",),
    ),
    Mutation(
        "measures, which pages are kept",
        (
            Edit(
                "processors/core/quantiles.py",
                "kept = (rank < MAX_PAGES) | (numbers == 0)",
                "kept = (numbers >= np.sort(numbers)[0]) & (rank % 2 == 0) | (numbers == 0)",
            ),
        ),
        (_MEASURES + "test_of_values_too_far_apart_those_closest_to_zero_count_as_zero",),
    ),
    Mutation(
        "measures, sketches go with their panes",
        (
            Edit(
                "processors/core/slots.py",
                "            let_go(rows)\n",
                "            del let_go\n",
            ),
        ),
        (_MEASURES + "test_rows_that_are_given_back_leave_nothing_behind",),
    ),
    Mutation(
        "measures, sketches are handed over with their panes",
        (
            Edit(
                "processors/core/summaries.py",
                "chosen[name] = (np.cumsum(kept) - 1)[panes[inside]]",
                "chosen[name] = panes[inside]",
            ),
        ),
        (_MEASURED + "test_what_a_split_and_a_merge_hand_over_is_what_each_key_had",),
    ),
    Mutation(
        "measures, no finite number",
        (
            Edit(
                "processors/core/measures.py",
                "present &= np.isfinite(values)",
                "values = np.nan_to_num(values)",
            ),
        ),
        ("tests/unit/core/test_measures.py::test_a_measure_that_is_no_finite_number_is_null",),
    ),
    Mutation(
        "keys, those in arrays are compared word by word",
        (
            Edit(
                "processors/core/key_index.py",
                "pending = np.flatnonzero((self._rows[codes] != words).any(axis=1) & (codes >= 0))",
                "pending = np.zeros(0, dtype=np.int64)",
            ),
        ),
        (_KEYS + "test_many_keys_are_found_in_arrays_again_and_again",),
    ),
    Mutation(
        "keys, those in arrays get wider rows for longer texts",
        (
            Edit(
                "processors/core/key_index.py",
                "        if self._widths != before:\n",
                "        if words.shape[1] != self._rows.shape[1] and not before:\n",
            ),
        ),
        (_KEYS + "test_codes_are_as_in_a_dictionary",),
    ),
    Mutation(
        "expressions, integers do not wrap",
        (
            Edit(
                "processors/core/expression_terms.py",
                'fits = ~_overflows(ufunc, a, b, result) if kind == "integer" else np.isfinite(result)',
                "fits = np.isfinite(result)",
            ),
        ),
        (
            "tests/properties/test_expressions.py::test_an_expression_means_what_python_means_but_for_null_and_numbers_that_do_not_exist",
        ),
    ),
    Mutation(
        "Lambda host, a fenced state is let go",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "                self._warm.was_fenced(batch.shard_id)\n                work.conflicts += 1",
                "                work.conflicts += 1",
            ),
        ),
        (_LAMBDA + "test_a_conflict_whose_row_does_not_cover_the_batch_is_waited_out_and_the_batch_applied",),
    ),
    Mutation(
        "Lambda host, a conflict is success only where the row covers the batch",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "if is_others and batch.is_covered_by(row.position):",
                "if is_others:",
            ),
        ),
        (
            _LAMBDA + "test_a_conflict_whose_row_does_not_cover_the_batch_is_waited_out_and_the_batch_applied",
            _LAMBDA + "test_a_record_beyond_the_end_of_a_sealed_shard_is_an_error",
        ),
    ),
    Mutation(
        "Lambda host, a claim names the version that was seen",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "seen_version=row.claim_version",
                "seen_version=None",
            ),
        ),
        (_LAMBDA + "test_a_claim_that_another_sandbox_was_faster_with_is_no_theft",),
    ),
    Mutation(
        "Lambda host, a gap is read",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "reason = None if held.is_joined else self._join(held, batch, work)",
                "reason = None",
            ),
        ),
        (
            _LAMBDA + "test_what_lies_between_the_state_and_the_batch_is_read_from_the_stream",
            _LAMBDA + "test_a_gap_whose_records_were_trimmed_stops_the_shard_with_a_clear_error",
        ),
    ),
    Mutation(
        "Lambda host, a gap is read to its end",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                'return "what lies before the batch is being read"',
                "held.is_joined = True",
            ),
        ),
        (_LAMBDA + "test_a_gap_that_is_longer_than_the_time_is_read_in_several_invocations",),
    ),
    Mutation(
        "Lambda host, an error ends the session",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "            self._warm.forget(shard_id)\n            raise",
                "            raise",
            ),
        ),
        (_LAMBDA + "test_after_a_bug_the_next_invocation_begins_from_what_is_saved",),
    ),
    Mutation(
        "Lambda host, a state that has gone back is joined anew",
        (
            Edit(
                "processors/hosts/aws_lambda/warm.py",
                "position.sequence_number >= number",
                "position.sequence_number >= 0",
            ),
        ),
        (_LAMBDA + "test_a_state_that_has_gone_back_is_joined_anew",),
    ),
    Mutation(
        "Lambda host, a trimmed gap behind a warm state is noticed",
        (
            Edit(
                "processors/hosts/aws_lambda/warm.py",
                "return self._now_ms() - arrival_ms < _KEPT_FOR_CERTAIN_MS",
                "return self._now_ms() - arrival_ms < 1_000 * _KEPT_FOR_CERTAIN_MS",
            ),
        ),
        (_LAMBDA + "test_what_was_trimmed_while_a_warm_sandbox_could_not_go_on_is_noticed",),
    ),
    Mutation(
        "Lambda host, an overtaken state is let go",
        (
            Edit(
                "processors/hosts/aws_lambda/warm.py",
                "if held is None or not self._looks:",
                "if held is None or self._looks:",
            ),
        ),
        (_LAMBDA + "test_a_sandbox_that_was_overtaken_looks_before_it_applies_a_batch_for_nothing",),
    ),
    Mutation(
        "Lambda host, a cold start that took long answers before it claims",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "if held is None and self._time.is_short:",
                "if held is None and self._time.is_short and work.claims:",
            ),
        ),
        (_LAMBDA + "test_a_cold_start_that_took_nearly_all_the_time_answers_before_it_claims",),
    ),
    Mutation(
        "Lambda host, time for the commit is kept",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                '            if self._time.is_short:\n                return "the time',
                '            if self._time.is_over:\n                return "the time',
            ),
        ),
        (_LAMBDA + "test_a_batch_that_takes_too_long_is_committed_as_far_as_it_went",),
    ),
    Mutation(
        "Lambda host, delivery ends in time",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "            if self._time.is_over:\n                raise _TimeIsOver",
                "            if self._time.is_over and False:\n                raise _TimeIsOver",
            ),
        ),
        (_LAMBDA + "test_what_is_saved_counts_although_the_time_does_not_suffice_to_deliver_it",),
    ),
    Mutation(
        "Lambda host, the answer names what is not committed",
        (
            Edit(
                "processors/hosts/aws_lambda/batches.py",
                "if int(record.sequence_number) > reached)",
                "if int(record.sequence_number) > reached + 1)",
            ),
        ),
        (_LAMBDA + "test_a_batch_that_takes_too_long_is_committed_as_far_as_it_went",),
    ),
    Mutation(
        "Lambda host, all rows before a claim",
        (
            Edit(
                "processors/hosts/aws_lambda/shards.py",
                "list_shards(self._kinesis, self._stream), start",
                "[each for each in list_shards(self._kinesis, self._stream) if each.shard_id == shard_id], start",
            ),
        ),
        (_LAMBDA + "test_all_shards_of_the_stream_get_their_rows_before_one_is_claimed",),
    ),
    Mutation(
        "Lambda host, records of another stream",
        (
            Edit(
                "processors/hosts/aws_lambda/kinesis_event.py",
                "if record.event_source_arn != stream_arn:",
                "if not record.event_source_arn:",
            ),
        ),
        (_LAMBDA_FUNCTIONS + "test_a_record_of_another_stream_is_one_line_and_none_of_its_batch_is_counted",),
    ),
    Mutation(
        "Lambda host, settings of the event source",
        (
            Edit(
                "processors/hosts/aws_lambda/processor.py",
                "        check_event_sources(clients.functions, function, stream_arn=self._resources.stream_arn)\n",
                "        clients.functions\n",
            ),
        ),
        (_LAMBDA_FUNCTIONS + "test_an_unsafe_event_source_is_one_line_and_nothing_is_claimed",),
    ),
    Mutation(
        "Lambda host, a processor at work is not fenced by a tick",
        (
            Edit(
                "processors/hosts/ticks.py",
                "if row.owner is not None and watch.unchanged_s(row) < abandoned_after_s:",
                "if row.owner is not None and watch.unchanged_s(row) < 0:",
            ),
        ),
        (_CHILD_STARTS + "test_a_processor_at_work_is_not_fenced",),
    ),
    Mutation(
        "Lambda host, what was begun is not begun again",
        (
            Edit(
                "processors/hosts/ticks.py",
                "if row.sealed or row.snapshot_sha256 is not None:",
                "if row.sealed:",
            ),
        ),
        (_CHILD_STARTS + "test_what_was_begun_is_left_alone",),
    ),
    Mutation(
        "incidents, a late raise opens none",
        (
            Edit(
                "infra/incident.asl.json",
                ' raises = :one REMOVE task_token, cleared_by, closed_at, closed_for",\n'
                '        "ConditionExpression": "(attribute_not_exists(incident_status) OR incident_status <> :open)'
                ' AND (attribute_not_exists(rule_sequence) OR rule_sequence < :sequence)"',
                ' raises = :one REMOVE task_token, cleared_by, closed_at, closed_for",\n'
                '        "ConditionExpression": "attribute_not_exists(incident_status) OR incident_status <> :open"',
            ),
        ),
        (_INCIDENTS + "test_a_raise_that_comes_after_its_clear_opens_nothing",),
    ),
    Mutation(
        "incidents, what was cleared does not wait",
        (
            Edit(
                "infra/incident.asl.json",
                '"ConditionExpression": "incident_id = :id AND incident_status = :open"',
                '"ConditionExpression": "incident_id = :id AND incident_status <> :open"',
            ),
        ),
        (_INCIDENTS + "test_one_that_was_cleared_before_it_waits_is_closed_all_the_same",),
    ),
    Mutation(
        "kcl, checkpoint without a commit",
        (
            Edit(
                "processors/hosts/kcl/shard_processor.py",
                "            self._commit(session)\n            yield from self._checkpoints",
                "            yield from self._checkpoints",
            ),
        ),
        (_KCL_SHARD + "test_a_batch_is_checkpointed_when_it_is_committed_and_not_before",),
    ),
    Mutation(
        "kcl, checkpoint beyond what was handed over",
        (
            Edit(
                "processors/hosts/kcl/checkpoints.py",
                "position = min(session.committed, self.delivered)",
                "position = session.committed",
            ),
        ),
        (_KCL_SHARD + "test_a_checkpoint_is_not_asked_for_further_than_was_handed_over",),
    ),
    Mutation(
        "kcl, the record at the position is not looked for",
        (
            Edit(
                "processors/hosts/kcl/opening.py",
                "(False, None) if position is None else (True, position.sequence_number + 1)",
                "(False, None)",
            ),
        ),
        (_KCL_SHARD + "test_a_position_that_was_trimmed_out_of_the_stream_stops_the_child",),
    ),
    Mutation(
        "kcl, the gap before the checkpoint is not read",
        (
            Edit(
                "processors/hosts/kcl/opening.py",
                "max(int(text), -1 if position is None else position.sequence_number) + 1",
                "(-1 if position is None else position.sequence_number) + 1",
            ),
        ),
        (
            _KCL_SHARD + "test_a_state_behind_the_checkpoint_reads_the_gap_from_the_stream",
            _KCL_SHARD + "test_a_state_that_was_lost_reads_everything_before_the_checkpoint",
        ),
    ),
    Mutation(
        "kcl, a shard is sealed before its children have rows",
        (
            Edit(
                "processors/hosts/kcl/shard_processor.py",
                "            self._in_place.until_done(self._name_children)\n",
                "",
            ),
        ),
        (
            _KCL_SHARD + "test_the_end_of_a_shard_seals_it_after_its_children_have_rows",
            _KCL_SHARD + "test_a_stream_that_was_deleted_is_no_end_of_its_shards",
        ),
    ),
    Mutation(
        "kcl, an error is reported as done",
        (
            Edit(
                "processors/hosts/kcl/child.py",
                "        except StopIteration:",
                "        except Exception:",
            ),
        ),
        (_KCL_DIALOGUE + "test_a_batch_that_our_code_fails_at_is_never_reported_as_done",),
    ),
    Mutation(
        "kcl, a stop does not release",
        (
            Edit(
                "processors/hosts/kcl/shard_processor.py",
                "until_done(session.release)",
                "until_done(session.commit)",
            ),
        ),
        (_KCL_SHARD + "test_a_graceful_stop_commits_checkpoints_and_releases",),
    ),
    Mutation(
        "kcl, work goes on after a stop",
        (
            Edit(
                "processors/hosts/kcl/shard_processor.py",
                "        if self._is_stopped:\n",
                "        if False:\n",
            ),
        ),
        (_KCL_SHARD + "test_records_after_the_request_to_stop_are_refused",),
    ),
    Mutation(
        "kcl, a start in time is not kept to",
        (
            Edit(
                "processors/hosts/kcl/shard_processor.py",
                "if record.arrival_ms >= start_ms",
                "if record.arrival_ms >= 0",
            ),
        ),
        (_KCL_SHARD + "test_a_start_in_time_leaves_out_what_the_daemon_hands_over_before_it",),
    ),
    Mutation(
        "kcl, the lease table of another stream is used",
        (
            Edit(
                "processors/hosts/kcl/leases.py",
                "if stream is not None and stream != stream_arn:",
                "if False:",
            ),
        ),
        (_KCL_LEASES + "test_the_lease_table_of_another_stream_is_refused",),
    ),
    Mutation(
        "kcl, altered jars are run",
        (
            Edit(
                "processors/hosts/kcl/installation.py",
                "if found != expected:",
                "if False:",
            ),
        ),
        (_KCL_INSTALLATION + "test_an_altered_jar_is_not_run",),
    ),
    Mutation(
        "kcl, two hosts go on fencing each other",
        (
            Edit(
                "processors/hosts/kcl/host.py",
                'error.event == "fenced" and',
                'error.event == "never" and',
            ),
        ),
        (_KCL_HOST + "test_two_hosts_that_fence_each_other_are_told_apart_from_a_zombie",),
    ),
    Mutation(
        "kcl, applied user records are applied again",
        (
            Edit(
                "processors/core/unpack.py",
                "    unpacked.redelivered = _applied(records, numbers, after)\n",
                "    unpacked.redelivered = 0\n",
            ),
        ),
        ("tests/properties/test_user_records.py::test_what_was_taken_apart_means_the_same",),
    ),
    Mutation(
        "kcl, standard output is open to all",
        (
            Edit(
                "processors/hosts/kcl/child.py",
                "    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())\n",
                "",
            ),
        ),
        (_KCL_DIALOGUE + "test_nothing_but_the_protocol_comes_to_standard_output",),
    ),
)
