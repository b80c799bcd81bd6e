"""Small pieces of Jinja, each one rule of the language."""

VARIABLES = {
    "x": 3,
    "zero": 0,
    "s": "h\u00e9llo W\u00f6rld",
    "empty": "",
    "l": [3, 1, 2],
    "words": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": [1, None, True], "items": "field"},
    "f": 2.5,
    "none_value": None,
    "yes": True,
    "no": False,
    "big": 9007199254740993,
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "n": {"k": 2}}, {"role": "user", "content": None}],
}

_EXPRESSIONS = r"""
x
s
l
d
f
none_value
yes
missing
messages
(1,)
()
(1, 'a', none)
{}
{'a': {'b': 1}}
{1: 2, 'x': [1.5, 2e20]}
[]
['it\'s', "a \"b\"", 'both \' and "', 'tab\t nl\n bs\\ \x01 é ☃ 😀']
'\u00e9\x41\101\U0001F600 \q \é'
'a' "b" 'c'
1_000 + 0x1F + 0b11 + 0o17
1.5e3
1e16
1e15
123456789012345.6
1e-5
0.0001
1e100
-0.0
0.1 + 0.2
100 * 1.1
2.0
1 / 3
7 // 2
-7 // 2
7 // -2
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
5 % 0
1 / 0
2 ** 10
2 ** -1
-2 ** 2
2 ** 3 ** 2
2 ** 0.5
(-8) ** 2
big + 1
big * 1.0
1 + true
'a' * 3
3 * [1, 2]
[1] + [2]
(1,) + (2,)
'a' + 1
1 + 'a'
'a' ~ 1 ~ none ~ missing ~ 1.0
missing + 'a'
missing ~ 'a'
missing.x
missing['x']
missing == none
missing == missing2
d.missing
d.missing.x
d.missing is defined
d['items']
d.items()
d.items() | list
d.keys() | list
d.values() | list
d.get('b')
d.get('zz')
d.get('zz', 5)
d.update({'a': 1})
d.pop('a')
l.append(1)
'items' in d
1 in l
1.0 in l
true in [1]
'x' not in 'abc'
1 in 'abc'
none in [none]
'a' in missing
1 < 2 < 3
1 < 2 > 5
1 == 1.0 == true
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
(1, 2) == [1, 2]
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
none == false
none < 1
not missing
not x is defined
x is defined and x is not none
x is number
f is integer
f is float
yes is integer
yes is number
s is string
d is mapping
l is sequence
s is sequence
d is sequence
x is iterable
l is iterable
none_value is none
yes is true
no is false
1 is true
x is odd
x is even
x is divisibleby 3
x is divisibleby(2)
x is eq 3
x is equalto(3)
x is in [1, 2, 3]
x is sameas 3
'abc' is lower
'ABC' is upper
'upper' is filter
'odd' is test
missing is undefined
x is not undefined
x is nosuchtest
x or 5
zero or 'default'
empty or none_value or 'last'
x and 'and'
no and missing.x
'yes' if x == 3 else 'no'
'yes' if x == 4
('yes' if x == 4) is defined
1 if no else 2 if no else 3
s[0]
s[-1]
s[99]
s[1:4]
s[::-1]
s[::2]
s[-3:]
s[5:1:-1]
l[1:]
l[:-1]
l[::-1]
l[0:10:2]
l[-99:99]
l['x']
l[1.0]
l[true]
l[none]
messages[0].role
messages[-1]['role']
messages[1].n.k
messages.0.role
messages[0]['nothing']
(1, 2, 3)[1:]
range(5) | list
range(5)
range(1, 10, 3) | list
range(5, 0, -2) | list
range(3)[1]
range(1000000)
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
s.split()
s.split('l')
s.split('l', 1)
s.rsplit('l', 1)
'  a b  '.strip()
'  a b  '.lstrip() ~ '|'
'  a b  '.rstrip() ~ '|'
'xxaxx'.strip('x')
'abcba'.lstrip('ab')
'\n\nx\n'.strip('\n')
s.startswith('hé')
s.endswith('d')
s.startswith(('x', 'h'))
s.replace('l', 'L')
s.replace('l', 'L', 1)
'abc'.replace('', '-')
', '.join(['a', 'b'])
', '.join([1])
s.find('W')
s.find('zz')
s.index('zz')
s.count('l')
'a\nb\r\nc'.splitlines()
'k=v=w'.partition('=')
'a-b'.removeprefix('a')
'7'.zfill(3)
'ab'.center(7, '*')
'12'.isdigit()
'ab1'.isalnum()
' '.isspace()
'{} and {}'.format(1, 'b')
'{1} {0} {name} {{}}'.format(1, 2, name='n')
'%s is %d, %5.2f|%-5s|%05d|%x' % (s, x, f, 'ab', 42, 255)
'%s' % 'one'
'%s %s' % 'one'
'%(a)s' % {'a': 1}
'100%' ~ x
s.__class__
s.__class__.__mro__
''.__class__.__base__.__subclasses__()
x.nothing
x.nothing.more
x()
nofunction()
s | upper
s | title
'hello-world (foo) <bar>' | title
s | capitalize
'  x  ' | trim
'xxaxx' | trim('x')
s | length
l | count
x | length
missing | length
s | first
s | last
l | first
[] | first
[] | last
l | sort
words | sort
words | sort(case_sensitive=true)
words | sort(reverse=true)
messages | sort(attribute='role') | map(attribute='role') | list
l | sum
[1, 2.5] | sum
l | min
l | max
words | min
words | unique | list
[1, 1.0, 2, true] | unique | list
l | reverse | list
s | reverse
d | dictsort
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(by='value', reverse=true)
d | items | list
missing | items | list
l | join
l | join(', ')
messages | join(', ', attribute='role')
messages | map(attribute='content') | list
messages | map(attribute='n.k', default='-') | list
words | map('upper') | list
words | map('upper')| join
l | map('string') | list
messages | selectattr('role', 'equalto', 'user') | list | length
messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first
messages | selectattr('n') | list
messages | rejectattr('content', 'none') | map(attribute='content') | list
messages | selectattr('n', 'defined') | list | length
[1, 2, 3, 4] | select('odd') | list
[1, 2, 3, 4] | reject('gt', 2) | list
[0, 1, '', 'a', none] | select | list
words | reject('equalto', 'b') | join(', ')
(messages | selectattr('role', 'equalto', 'nobody')) and 'a generator is true'
messages | selectattr('role', 'equalto', 'user') | length
messages | selectattr('role', 'equalto', 'user') | last
none_value | select | list
l | batch(2) | list
l | batch(2, 'x') | list
s | replace('l', 'L')
12345 | replace(3, 'x')
missing | default('d')
none_value | default('d')
none_value | default('d', true)
empty | d('e', boolean=true)
'42' | int
'42.9' | int
'x' | int
'x' | int(7)
'ff' | int(0, 16)
'0x1f' | int(base=16)
'1_000' | int
2.9 | int
-2.9 | int
'1e3' | float
'x' | float
x | float
'nan' | float
-3 | abs
2.5 | round
3.5 | round
2.567 | round(2)
2.5 | round(0, 'ceil')
2.51 | round(1, 'floor')
x | round
1234.5 | round(-2)
x | string ~ 'a'
s | list
d | list
d | string
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent('> ', blank=true)
'<a href="x">\'&' | e
('<b>' | safe) + '<i>'
'<b>' + ('<i>' | safe)
'a b, c' | wordcount
'a b/c?ü' | urlencode
d | tojson
d | tojson(indent=2)
messages | tojson(indent=4)
[] | tojson(indent=2)
{'b': [], 'a': {}} | tojson(indent=1, sort_keys=true)
d | tojson(separators=(',', ':'))
'é"\\\n\t\x01\x7f</script>😀' | tojson
'é😀\x7f' | tojson(ensure_ascii=true)
[1.0, 1e20, none, true, 0.1] | tojson
{1: 1, none: 2, true: 3, 1.5: 4} | tojson
(1, 2) | tojson
missing | tojson
range(3) | tojson
x | nosuchfilter
s | attr('upper') is callable
strftime_now('%d %b %Y')
strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %p %I %y %%')
strftime_now('%-d/%-m')
raise_exception('It is \'not\' allowed.')
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(a=1).zz
namespace(_a=1)
dict(a=1, b=2)
dict([('a', 1)])
-1 | abs
- x | abs
1 if missing else 2 | string
(x | string)[0]
'a' 'b' | upper
{'a': 1}.a
[1, 2,]
(1, 2,)
[
x y
1 +
d[
"unterminated
'\N{DASH}
1 ~ 2 + 3
'a' ~ 'b' == 'ab'
x is defined is none
not x == 3
[x, x + 1, x - 1] == [3, 4, 2]
l is sameas l
"ǆ Σίσυφος ΟΔΟΣ" | lower
"straße ﬁ" | upper
'é' * 2 ~ '日本語'[1]
""".strip("\n").split("\n")

_STATEMENTS = [
    "{% if x %}a{% endif %}",
    "{% if no %}a{% elif x == 3 %}b{% else %}c{% endif %}",
    "{% if %}{% endif %}",
    "{% if x %}",
    "{% endif %}",
    "{% nosuchtag %}",
    "{% for i in l %}{{ i }},{% endfor %}",
    "{% for i in [] %}{{ i }}{% else %}empty{% endfor %}",
    "{% for i in l if i > 1 %}{{ loop.index }}:{{ i }} of {{ loop.length }};{% else %}none{% endfor %}",
    "{% for i in l if i > 9 %}{{ i }}{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for c in s %}{{ c }}.{% endfor %}",
    "{% for i in x %}{% endfor %}",
    "{% for i in missing %}{% else %}nothing{% endfor %}",
    "{% for i in none_value %}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
    "{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for i in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}",
    "{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{% break %}{% else %}else{% endfor %}",
    "{% break %}",
    "{% for i in range(3) recursive %}{{ i }}{% if i == 2 %}{{ loop([7, 8]) }}{% endif %}{% endfor %}",
    "{% for m in [{'n': 'a', 'c': [{'n': 'b', 'c': []}]}] recursive %}<{{ m.n }}{{ loop.depth }}{{ loop(m.c) }}>{% endfor %}",
    "{% for i in l %}{{ i }}{% endfor %}{{ i }}",
    "{% set a = 1 %}{% for i in l %}{% set a = i %}{{ a }}{% endfor %}{{ a }}",
    "{% set a = 1 %}{% if x %}{% set a = 2 %}{% endif %}{{ a }}",
    "{% for i in l %}{{ before }}{% set before = i %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a ~ 2 %}{{ ns.b }}{{ ns.zz is defined }}",
    "{% set ns = namespace(stop=false) %}{% for i in range(9) if not ns.stop %}{{ i }}{% if i == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% set d.a = 1 %}",
    "{% set a, b = 1, 2 %}{{ b }}{{ a }}",
    "{% set (a, (b, c)) = (1, (2, 3)) %}{{ a }}{{ b }}{{ c }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a = 1 if x else 2 %}{{ a }}",
    "{% set a %}text {{ x }}{% endset %}[{{ a }}]",
    "{% set a | upper | replace('T', '_') %}text{% endset %}{{ a }}",
    "{% set 1 = 2 %}",
    "{% set loop_messages = messages[1:] %}{{ loop_messages | length }}{% set messages = [] %}{{ messages }}",
    "{% macro m(a, b=2, c=a) %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=1, a=0) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a, b) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, z=4) }}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "{% macro m() %}{{ x }}{{ y }}{% endmacro %}{% set y = 'late' %}{{ m() }}",
    "{% macro m() %}{% set x = 9 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% macro m() %} a {% endmacro %}[{{ m() | trim }}]{{ m() | length }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m(a) %}<{{ caller(a) }}>{% endmacro %}{% call(b) m(5) %}{{ b }}{{ x }}{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m(*a) %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}",
    "{% filter upper %}abc{{ x }}{% endfilter %}",
    "{% filter replace('a', 'b') | trim %} aaa {% endfilter %}|",
    "{% with a = 1, b = x %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}",
    "{% print x, s %}",
    "{% include 'x' %}",
    "{% raw %}{{ x }} {% if %}{% endraw %}!",
    "a{# comment {{ x }} #}b",
    "a{# no end",
    "{{ x",
    "{{ x }",
    "{{ x }}}",
    "{{ }}",
    "{{ '}}' }}{{ \"%}\" }}",
    "{{ {'a': {'b': 1}}['a'] }}",
    "{ x } {%",
    "text\n",
    "text\n\n",
    "a\n{% if x %}\nb\n{% endif %}\nc\n",
    "a\n    {% if x %}\n    b\n    {% endif %}\n    c",
    "a\n    {%- if x -%}\n    b\n    {%- endif -%}\n    c",
    "a\n    {%+ if x +%}\n    b\n    {%+ endif +%}\n    c",
    "a {{- x -}} b",
    "a  \n {{ x }}  \n b",
    "  {# c #}\n  x\n  {#- c -#}\n  y",
    "a  {# c #}\n b",
    "  {{ x }}\n  {{- x }}",
    "a\r\nb\rc\r\n",
    "{% if x %}  \n  a{% endif %}",
    "x{% if x %}\n\n a{% endif %}",
    " \t{% if x %}y{% endif %}",
    "{%- if x %}y{% endif -%}  z",
    "{% raw -%}  a  {%- endraw %}  b",
    "  {% raw %}\n a \n  {% endraw %}\n b",
    "{%- for m in messages %}\n  {{- m.role }}\n{%- endfor %}",
    "{% for m in messages %}\n{{ m.role }}\n{% endfor %}\nend",
    "{{ messages[0].content if messages[0].content is string else messages[0].content[0].text }}",
    "{% set m = messages | last %}{{ m.role }}{{ m.content is none }}",
    "{% if messages[0]['role'] == 'system' %}{% set o = 1 %}{% else %}{% set o = 0 %}{% endif %}{{ o }}{% for m in messages %}{{ (m.role == 'user') != (loop.index0 % 2 == o) }}{% endfor %}",
    "{% set g = messages | map(attribute='role') %}{{ g | first }}{{ g | list }}{{ g | list }}",
    "{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}",
    "{% if 'a' in missing %}{% else %}no{% endif %}{{ x | nosuch if no else 'fine' }}",
    "{% if no %}{{ x | nosuch }}{% endif %}ok",
    "{% for i in [] %}{{ x | nosuch }}{% endfor %}",
    "{% set tools = none %}{% if tools %}a{% elif tools is none %}b{% endif %}",
    "{{ 'multi\nline' }}{{ x +\n 1 }}",
    "{% set content = 'a</think>b' %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ content }}",
    "{% for m in messages[::-1] %}{% set index = (messages | length - 1) - loop.index0 %}{{ index }}{{ m.role }} {% endfor %}",
]

SNIPPETS = ["{{ " + e + " }}" for e in _EXPRESSIONS] + _STATEMENTS
