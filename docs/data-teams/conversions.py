#!/usr/bin/env python3
"""Builds conversions, sums and click counts from Clickback's topics, and prints them as JSON.

    pip install -r requirements.txt
    python3 conversions.py --kafka 127.0.0.1:9092              from the ledger, clickback.outcomes
    python3 conversions.py --kafka 127.0.0.1:9092 --connector  from clickback.conversions, as a connector does

It reads up to where the topic ends now. A real consumer goes on from there, and stores with its own tables, in one
transaction with them, `next`, `chain` and `offset` of each `Partition`.
"""

import argparse
import hashlib
import json
import sys
from decimal import Decimal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

UNCOUNTED = {"preview", "prefetch", "bot"}
OF_CLICK = ("link", "dyn", "sub1", "sub2", "sub3", "sub4", "sub5")
OF_CONVERSION = ("id", "version", "goal", "count", "state", "earning", "value", "currency", "tid", "player", "time")


class Diverged(Exception):
    """Two writers decided differently, or acknowledged data was lost. Stop, and tell somebody."""


class Partition:
    """The reader's rule: how far one partition was taken."""

    def __init__(self):
        self.next = 1  # offset 0 of every partition says which cluster it is of
        self.chain = "0" * 32
        self.offset = 0  # where reading goes on
        self.seen = 0  # the greatest number that was met, taken or not

    def takes(self, headers, payload):
        """Whether this record is the next outcome. Every other one is a repeat, or comes again later."""
        src = int(headers["src"])
        self.seen = max(self.seen, src)
        if src != self.next:
            return False
        digest = hashlib.sha256(self.chain.encode() + payload).hexdigest()[:32]
        if headers["prev"] != self.chain or headers["chain"] != digest:
            raise Diverged(f"outcome {self.next} does not continue the chain")
        self.next += 1
        self.chain = digest
        return True


def upsert(table, key, row):
    """What a connector does: the higher version of a key wins, so repeats and any order come to the same."""
    known = table.get(key)
    if known is None or known["version"] < row["version"]:
        table[key] = row


class Warehouse:
    """Clicks, conversions and sums; everything that an outcome says is in the outcome."""

    def __init__(self):
        self.clicks = {}  # account -> clicks that count
        self.conversions = {}  # id -> row as on clickback.conversions
        self.sums = {}  # (account, goal, state, currency) -> [count, earning, value]

    def take(self, outcome):
        click = outcome.get("click")
        if outcome["kind"] == "click" and click and not UNCOUNTED & set(click.get("flags", [])):
            self.clicks[click["account"]] = self.clicks.get(click["account"], 0) + 1
        for hit in outcome.get("hits", []):
            for goal in hit.get("goals", []):
                if goal.get("conversion"):
                    self.convert(outcome, hit, hit["click"], hit.get("label"), goal["conversion"])
        adjust = outcome.get("adjust")
        if adjust and adjust["conversion"]:
            self.convert(outcome, adjust, click, adjust["label"], adjust["conversion"])
        for change in outcome.get("changes", []):
            key = (change["account"], change["goal"], change["state"], change["currency"])
            cell = self.sums.setdefault(key, [0, Decimal(0), Decimal(0)])
            cell[0] += change["count"]
            cell[1] += Decimal(change["earning"] or 0)
            cell[2] += Decimal(change["value"] or 0)

    def convert(self, outcome, of, click, label, conversion):
        known = self.conversions.get(conversion["id"])
        row = {name: conversion[name] for name in OF_CONVERSION}
        if known:  # a conversion stays with the click or label that it was made on
            row.update({name: known[name] for name in ("program", "click", *OF_CLICK)})
        else:
            row.update({name: click[name] if click else None for name in OF_CLICK})
            row.update(program=of["program"], click=click["id"] if click else None)
            if label is not None:
                row["dyn"] = label
        row["click_time"] = (known["click_time"] if known else click["time"]) if row["click"] else row["time"]
        row.update(v=1, tenant=outcome["tenant"] or of["tenant"], account=of["account"], updated=outcome["time"])
        if conversion.get("withdrawn"):
            row["withdrawn"] = True
        upsert(self.conversions, row["id"], row)


def records(kafka, topic):
    """Every record of a topic up to its present end: partition, offset, key, headers, payload."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "clickback-data-team",
            "enable.auto.commit": False,  # a position belongs to the tables that were made from it
            "auto.offset.reset": "error",
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        ends = {}
        for partition in found.partitions:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if first < end:
                ends[partition] = end
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
        while ends:
            message = consumer.poll(10)
            if message is None:
                raise SystemExit(f"{topic} gives nothing more, but its end was not reached")
            if message.error():
                raise KafkaException(message.error())
            partition, offset = message.partition(), message.offset()
            headers = {name: value.decode() for name, value in message.headers() or []}
            yield partition, offset, (message.key() or b"").decode(), headers, message.value()
            if offset + 1 >= ends.get(partition, 0):
                ends.pop(partition, None)
    finally:
        consumer.close()


def from_outcomes(all_records):
    warehouse, partitions, skipped = Warehouse(), {}, 0
    for partition, offset, _, headers, payload in all_records:
        if headers["type"] == "identity":
            continue
        at = partitions.setdefault(partition, Partition())
        at.offset = offset + 1
        if at.takes(headers, payload):
            warehouse.take(json.loads(payload))
        else:
            skipped += 1
    for number, at in partitions.items():
        if at.seen >= at.next:  # it comes again, and what stands behind it too; who goes on reading meets it
            print(f"partition {number}: outcome {at.next} is missing so far", file=sys.stderr)
    sums = [[*key, count, str(earning), str(value)] for key, (count, earning, value) in sorted(warehouse.sums.items())]
    return {
        "conversions": warehouse.conversions,
        "clicks": warehouse.clicks,
        "sums": sums,
        "taken": sum(at.next - 1 for at in partitions.values()),
        "skipped": skipped,
    }


def from_conversions(all_records):
    table = {}
    for _, _, key, headers, payload in all_records:
        if headers["type"] == "conversion" and payload is not None:
            upsert(table, key, json.loads(payload))
    return {"conversions": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT,…")
    parser.add_argument("--topic-prefix", default="clickback")
    parser.add_argument("--connector", action="store_true", help="read the topic of conversions and not the ledger")
    args = parser.parse_args()
    try:
        if args.connector:
            result = from_conversions(records(args.kafka, f"{args.topic_prefix}.conversions"))
        else:
            result = from_outcomes(records(args.kafka, f"{args.topic_prefix}.outcomes"))
    except Diverged as alarm:
        sys.exit(f"ALARM: {alarm}")
    json.dump(result, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
