#!/usr/bin/env python3
"""Validates what the JSON Schema grammar lets through with another implementation: the jsonschema package.

  g++ -std=c++20 -O2 -I include -I tests -DEFFINFER_SHIPPED_MODELS='"models"' tests/reference/json_schema_documents.cpp \
      -o /tmp/documents -lpcre2-8 -lutf8proc
  python3 tests/reference/check_json_schema.py /tmp/documents [--schemas 2500] [--seeds 3] [--suite JSON-Schema-Test-Suite]

1. Random schemas; for each, texts that a random choice among the allowed tokens writes: all must be valid.
2. With --suite (a checkout of json-schema-org/JSON-Schema-Test-Suite): each of its draft 2020-12 documents, in the compact spelling
   and the order of `properties`; no invalid one may be taken, and refused valid ones are listed.

Needs: pip install jsonschema rfc3339-validator rfc3986-validator fqdn.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys

import jsonschema

VALIDATOR = jsonschema.Draft202012Validator
CHECKER = VALIDATOR.FORMAT_CHECKER


class Grammar:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the program ended at " + json.dumps(question)[:4000])
        return json.loads(answer)


WORDS = ["a", "b", "name", "id", "x y", "é", "quote\"", "back\\slash", "a/b", "日本", "long name of a property", "kind", "0"]
PATTERNS = ["^[a-z]{1,8}$", "^[A-Z]{3}-[0-9]{4,6}$", "a", "^x", "\\d{2}$", "^(foo|bar)+$", "^[^a-z]{2,5}$", "^\\w+( \\w+)*$", "é|ü", "^$"]
FORMATS = ["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri"]


class Schemas:
    """One random schema; `definitions` may refer to one another."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def chance(self, p):
        return self.r.random() < p

    def value(self, depth=2):
        r = self.r
        kind = r.randrange(7 if depth > 0 else 5)
        if kind == 0:
            return r.choice(WORDS + ["", "tab\t", "line\nbreak", "\u0001", "🙂"])
        if kind == 1:
            return r.choice([0, 1, -1, 17, 10**12, -400])
        if kind == 2:
            return r.choice([0.5, -2.25, 1.0, 1e-3, 123456.75])
        if kind == 3:
            return r.choice([True, False])
        if kind == 4:
            return None
        if kind == 5:
            return [self.value(depth - 1) for _ in range(r.randrange(3))]
        return {r.choice(WORDS): self.value(depth - 1) for _ in range(r.randrange(3))}

    def root(self):
        self.names = []
        schema = {}
        if self.chance(0.3):
            self.names = ["node", "a~/b%"][: self.r.randrange(1, 3)]
        made = self.schema(3)
        schema.update(made if isinstance(made, dict) else {"allOf": [made]})
        if self.names:
            # Recursion under something that may be left out, so that it can end.
            schema["$defs"] = {n: self.of_recursion(n) for n in self.names}
        return schema

    def reference(self):
        name = self.r.choice(self.names).replace("~", "~0").replace("/", "~1").replace("%", "%25")
        beside = self.r.choice([{}, {}, {"maxItems": 3}, {"maxProperties": 3, "maximum": 1000}])
        return {"$ref": "#/$defs/" + name, **beside}

    def of_recursion(self, _):
        r = self.r
        what = r.randrange(3)
        if what == 0:
            return {"type": "object", "properties": {"v": self.scalar(), "next": self.reference()},
                    "required": ["v"], "additionalProperties": False}
        if what == 1:
            return {"anyOf": [self.scalar(), {"type": "array", "items": self.reference(), "maxItems": r.randrange(1, 4)}]}
        return {"type": "array", "prefixItems": [self.scalar()], "items": self.reference(), "minItems": r.randrange(2)}

    def scalar(self):
        return self.r.choice([self.string, self.integer, self.number, lambda: {"type": "null"}, lambda: {"type": "boolean"}])()

    def schema(self, depth):
        r = self.r
        kinds = [self.string, self.integer, self.number, self.enumeration, lambda: {"const": self.value()},
                 lambda: {"type": r.choice(["null", "boolean"])}]
        if depth > 0:
            kinds += [lambda: self.object(depth)] * 5 + [lambda: self.array(depth)] * 3
            kinds += [lambda: self.any_of(depth), lambda: self.one_of(depth), lambda: self.all_of(depth), lambda: self.types(depth)]
        if self.names:
            kinds += [self.reference] * 3
        if self.chance(0.04):
            return r.choice([True, {}])
        schema = r.choice(kinds)()
        if self.chance(0.1):
            schema = {**schema, "description": "any text", "default": 1}
        return schema

    def string(self):
        r, schema = self.r, {"type": "string"}
        what = r.randrange(5)
        if what == 0:
            schema["pattern"] = r.choice(PATTERNS)
        elif what == 1:
            schema["format"] = r.choice(FORMATS)
        elif what == 2:
            schema["minLength"] = r.randrange(6)
        if what >= 2 and self.chance(0.6) or what == 0 and schema["pattern"] in ("a", "^x", "é|ü") and self.chance(0.3):
            schema["maxLength"] = schema.get("minLength", 3) + r.randrange(10)
        return schema

    def bounds(self, schema, make):
        low, high = sorted([make(), make()])
        if self.chance(0.6):
            schema[self.r.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance(0.6):
            schema[self.r.choice(["maximum", "exclusiveMaximum"])] = high + 1
        return schema

    def integer(self):
        schema = {"type": "integer"}
        if self.chance(0.25):
            schema["multipleOf"] = self.r.choice([1, 2, 3, 7, 10, 25, 128])
            return schema
        return self.bounds(schema, lambda: self.r.choice([0, 1, -1]) * self.r.randrange(10 ** self.r.randrange(1, 9)))

    def number(self):
        if self.chance(0.15):
            return {"type": "number", "multipleOf": self.r.choice([1, 3, 5])}
        return self.bounds({"type": "number"},
                           lambda: self.r.choice([0.0, 1.5, -2.25, 0.001, -1e-5, 3.0, 1000.125, round(self.r.uniform(-99, 99), 3)]))

    def enumeration(self):
        return {"enum": [self.value() for _ in range(self.r.randrange(1, 6))]}

    def types(self, depth):
        kinds = self.r.sample(["null", "boolean", "string", "integer", "number", "array", "object"], self.r.randrange(1, 4))
        schema = {"type": kinds}
        for part in (self.string() if "string" in kinds else {}, self.integer() if "integer" in kinds else {},
                     self.array(depth) if "array" in kinds else {}, self.object(depth) if "object" in kinds else {}):
            schema.update({k: v for k, v in part.items() if k != "type"})
        return schema

    def object(self, depth):
        r, schema = self.r, {"type": "object"}
        names = r.sample(WORDS, r.randrange(0, 5))
        schema["properties"] = {n: self.schema(depth - 1) for n in names}
        schema["required"] = [n for n in names if self.chance(0.5)]
        if self.chance(0.05):
            schema["required"] = schema["required"] + ["only required"]
        extra = r.randrange(4)
        if extra in (0, 1):
            schema["additionalProperties"] = False
        elif extra == 2:
            schema["additionalProperties"] = self.scalar()
        if self.chance(0.15):
            schema["patternProperties"] = {r.choice(["^x_", "[0-9]$", "^[a-c]+$"]): self.scalar()}
        if self.chance(0.1):
            schema["propertyNames"] = r.choice([{"maxLength": 12}, {"pattern": "^[a-z ]+$"}, {"minLength": 2}])
        if self.chance(0.2):
            schema["maxProperties"] = len(schema["required"]) + r.randrange(3)
        if self.chance(0.1):
            schema["minProperties"] = min(len(schema["required"]) + r.randrange(2), 1 + len(schema["required"]))
        if not names and self.chance(0.5):
            del schema["properties"]
        return schema

    def array(self, depth):
        r, schema = self.r, {"type": "array"}
        if self.chance(0.4):
            schema["prefixItems"] = [self.schema(depth - 1) for _ in range(r.randrange(1, 4))]
        if self.chance(0.8):
            schema["items"] = False if "prefixItems" in schema and self.chance(0.4) else self.schema(depth - 1)
        if self.chance(0.4) and schema.get("items") is not False:
            schema["minItems"] = r.randrange(4)
        if self.chance(0.4):
            schema["maxItems"] = schema.get("minItems", 0) + r.randrange(4)
        return schema

    def any_of(self, depth):
        schema = {"anyOf": [self.schema(depth - 1) for _ in range(self.r.randrange(1, 4))]}
        if self.chance(0.2):
            schema["type"] = self.r.choice(["object", "array", "string", "number"])
        return schema

    def one_of(self, depth):
        if self.chance(0.5):  # told apart by a property
            return {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": self.schema(depth - 1)},
                               "required": ["kind"], "additionalProperties": False} for k in ("one", "two", "three")]}
        return {"oneOf": [s for s in (self.string(), self.integer(), self.array(depth), {"type": "null"}) if self.chance(0.7)]
                or [{"type": "null"}]}

    def all_of(self, depth):
        a, b = self.object(depth), self.object(depth)
        if self.chance(0.3):
            return {"allOf": [{"anyOf": [self.object(depth - 1), self.array(depth - 1), self.scalar()]} for _ in range(2)],
                    "type": self.r.choice(["object", "array", "string", "integer", ["number", "null"]])}
        if self.chance(0.5):
            a, b = self.r.choice([({"type": "integer", "minimum": -50}, {"maximum": 70, "multipleOf": 3}),
                                  ({"type": "string", "pattern": "^[a-z]*$"}, {"pattern": "b", "maxLength": 9}),
                                  ({"enum": [1, "x", None, [2]]}, {"type": ["string", "array", "null"]}),
                                  ({"type": "array", "items": {"type": "integer"}}, {"items": {"minimum": 3}, "maxItems": 4})])
        return {"allOf": [a, b]}


def random_schemas(grammar, count, seeds):
    n = collections.Counter()
    reasons = collections.Counter()
    used = collections.Counter()
    bad = []
    seed = 0
    while n["schemas"] < count:
        seed += 1
        schema = Schemas(seed).root()
        answer = grammar.ask({"schema": json.dumps(schema), "seeds": [seed * 100, seeds]})
        if "error" in answer:
            n["unsupported" if answer["unsupported"] else "refused"] += 1
            reasons[answer["error"].split(": ", 2)[-1].split(" for ")[0][:90]] += 1
            if "no finite text" in answer["error"]:
                guesses = [{}, [], "", None, True, 0, 1, -3, 0.5, "a", "b", "foo", "aaaaaa"] + [Schemas(i).value() for i in range(60)]
                if any(VALIDATOR(schema, format_checker=CHECKER).is_valid(g) for g in guesses):
                    n["NOT EMPTY"] += 1
                    bad.append((seed, json.dumps(schema), answer["error"], "but there is a valid value"))
            continue
        n["schemas"] += 1
        used.update(keywords(schema))
        validator = VALIDATOR(schema, format_checker=CHECKER)
        for text in answer["texts"]:
            if text is None:
                n["not ended"] += 1
                continue
            n["texts"] += 1
            n["bytes"] += len(text.encode())
            try:
                problem = next(iter(validator.iter_errors(json.loads(text))), None)
            except ValueError as e:
                problem = e
            except RecursionError:
                n["too deep for the validator"] += 1
                continue
            if problem is not None:
                n["INVALID"] += 1
                bad.append((seed, json.dumps(schema), text, str(problem)[:300]))
    print(f"{count} random schemas out of {seed}, {seeds} seeds each:", dict(n))
    print("  refused:", reasons.most_common(12))
    print("  keywords in them:", dict(sorted(used.items())))
    for b in bad[:5]:
        print("  INVALID", *b, sep="\n    ")
    return n["INVALID"] + n["NOT EMPTY"] == 0


def keywords(schema):
    if isinstance(schema, list):
        for s in schema:
            yield from keywords(s)
    elif isinstance(schema, dict):
        for k, v in schema.items():
            if k in ("properties", "patternProperties", "$defs"):
                yield k
                for s in v.values():
                    yield from keywords(s)
            elif k not in ("enum", "const", "required", "description", "default"):
                yield k
                if k != "type":
                    yield from keywords(v)
            elif k != "description":
                yield k


def in_order(schema, value):
    """The members of objects in the order of the schema's properties, as the grammar wants them."""
    if isinstance(value, dict):
        listed = list(schema.get("properties", {})) if isinstance(schema, dict) else []
        listed += schema.get("required", []) if isinstance(schema, dict) else []
        names = [n for n in listed if n in value]
        names = list(dict.fromkeys(names)) + [n for n in value if n not in names]
        below = schema.get("properties", {}) if isinstance(schema, dict) else {}
        return {n: in_order(below.get(n, {}), value[n]) for n in names}
    return value


def suite(grammar, folder):
    good = True
    total = collections.Counter()
    print(f"{'keyword':30} {'taken':>11} {'refused':>11} {'unsupported':>11} {'narrowed':>8}")
    files = sorted(folder.glob("tests/draft2020-12/*.json")) + sorted(folder.glob("tests/draft2020-12/optional/format/*.json"))
    for file in files:
        n = collections.Counter()
        narrowed, errors = [], collections.Counter()
        for group in json.loads(file.read_text()):
            texts = [json.dumps(in_order(group["schema"], t["data"]), separators=(",", ":"), ensure_ascii=False)
                     for t in group["tests"]]
            try:
                for t in texts:
                    t.encode()
            except UnicodeEncodeError:
                continue
            answer = grammar.ask({"schema": json.dumps(group["schema"]), "documents": texts})
            if "error" in answer:
                # Nothing may be valid under a schema that is refused for being empty.
                empty = not any(t["valid"] for t in group["tests"])
                n["unsupported" if answer["unsupported"] or not empty else "empty"] += len(texts)
                errors[answer["error"][:150]] += 1
                continue
            for test, text, taken in zip(group["tests"], texts, answer["taken"]):
                n[("valid" if test["valid"] else "invalid") + (" taken" if taken else " refused")] += 1
                if taken and not test["valid"]:
                    good = False
                    print("  INVALID TAKEN", json.dumps(group["schema"]), text)
                if test["valid"] and not taken:
                    narrowed.append((json.dumps(group["schema"])[:120], text[:80]))
        total.update(n)
        print(f"{file.stem:30} {n['valid taken']:5}/{n['valid taken'] + n['valid refused']:5} "
              f"{n['invalid refused'] + n['empty']:5}/{n['invalid refused'] + n['empty'] + n['invalid taken']:5} {n['unsupported']:11} {len(narrowed):8}")
        for s, t in narrowed:
            print("    narrower:", s, "<-", t)
        for e, k in errors.most_common(3):
            print(f"    {k} x {e}")
    print(dict(total))
    return good


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("--schemas", type=int, default=2500)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--suite", type=pathlib.Path)
    a = p.parse_args()
    missing = [f for f in FORMATS if f not in CHECKER.checkers]
    if missing:
        sys.exit(f"no checker of the formats {missing}: see the top of this file")
    grammar = Grammar(a.program)
    good = random_schemas(grammar, a.schemas, a.seeds) if a.schemas else True
    if a.suite:
        good = suite(grammar, a.suite) and good
    sys.exit(0 if good else 1)


main()
