#!/usr/bin/env python3
"""Writes tests/data/chat_templates/cases.json: what Jinja2 makes of templates, with transformers' settings.

    {"conversations": {name: {"messages", "tools"?, "add_generation_prompt"?, "variables"?}},
     "templates": {name: {"source", "cases": {conversation: expected}}},
     "snippets": {"variables", "cases": [[source, expected], ...]}}

`expected` is the text, or {"raised": words} where the template calls raise_exception, or {"error": type} where it fails in
another way. bos_token is <s>, eos_token </s>, and it is always Friday, the 26th of July 2024, 15:04:05.

    python tests/reference/make_chat_template_references.py     # needs: pip install jinja2==3.1.6; checks against transformers if it is there
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chat_template_snippets import SNIPPETS, VARIABLES
from chat_template_sources import CONVERSATIONS, TEMPLATES

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "chat_templates" / "cases.json"
NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)


class Raised(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    class Namespace(jinja2.utils.Namespace):
        """As transformers': no attributes that begin with an underscore."""

        def __init__(*args, **kwargs):
            self, args = args[0], args[1:]
            attributes = dict(*args, **kwargs)
            if any(isinstance(name, str) and name.startswith("_") for name in attributes):
                raise jinja2.exceptions.SecurityError("underscore")
            jinja2.utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name, value):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError("underscore")
            jinja2.utils.Namespace.__setitem__(self, name, value)

    env.filters["tojson"] = tojson
    env.globals["namespace"] = Namespace
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def with_reasoning(message):
    fields = ("reasoning_content", "thinking", "reasoning")
    found = next((message[k] for k in fields if message.get(k) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def render(source, variables):
    try:
        return environment().from_string(source).render(**variables)
    except Raised as e:
        return {"raised": str(e)}
    except Exception as e:
        return {"error": type(e).__name__}


def variables_of(conversation):
    messages = [with_reasoning(m) for m in conversation["messages"]]
    # Our messages always have a content: None where there is none.
    messages = [{"role": m["role"], "content": m.get("content"), **m} for m in messages]
    for m in messages:  # the order of our messages' fields
        if "thinking" in m:
            thinking = m.pop("thinking")
            rest = dict(m)
            m.clear()
            m.update({"thinking": thinking, **rest})
    return dict(
        messages=messages,
        tools=conversation.get("tools"),
        documents=None,
        add_generation_prompt=conversation.get("add_generation_prompt", True),
        bos_token="<s>",
        eos_token="</s>",
        **conversation.get("variables", {}),
    )


def check_against_transformers():
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError:
        return
    for name, source in TEMPLATES.items():
        if "strftime_now" in source:
            continue
        for c in CONVERSATIONS.values():
            v = variables_of(c)
            ours = render(source, v)
            try:
                given = {k: v[k] for k in v if k not in ("messages", "tools", "documents")}
                theirs = render_jinja_template([v["messages"]], tools=v["tools"], chat_template=source, **given)[0][0]
            except Exception:
                theirs = None
            assert ours == theirs or (theirs is None and isinstance(ours, dict)), (name, ours, theirs)


def main():
    check_against_transformers()
    templates = {
        name: {"source": source, "cases": {c: render(source, variables_of(conversation)) for c, conversation in CONVERSATIONS.items()}}
        for name, source in TEMPLATES.items()
    }
    snippets = [[source, render(source, json.loads(json.dumps(VARIABLES)))] for source in SNIPPETS]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    whole = {"conversations": CONVERSATIONS, "templates": templates, "snippets": {"variables": VARIABLES, "cases": snippets}}
    OUT.write_text(json.dumps(whole, ensure_ascii=False, indent=0) + "\n")
    texts = sum(isinstance(e, str) for t in templates.values() for e in t["cases"].values())
    print(len(templates), "templates,", len(templates) * len(CONVERSATIONS), "conversations of which", texts, "give a text;",
          len(snippets), "snippets;", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
