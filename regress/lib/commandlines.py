"""commandlines.py - command lines of etcdctl that t4's own client takes, too, but for -w fields and table.

They run one after the other, each on what the ones before it have left.  A line may have the text for
standard input behind " << ", with \\n in it; {name} is a lease that "grant name" asked for.

Entry points: WRITES, READS, ..., and each(), which gives one command line after the other.

SPDX-License-Identifier: Apache-2.0
"""

import shlex

WRITES = r"""
put a 1
put a 2 --prev-kv
put a/1 one
put a/2 two
put a/3 three
put b ''
put 'key with spaces' 'a value
of two lines'
put from-stdin << the value comes from standard input
put -- -dash -value
put --ignore-value a --prev-kv
put a 3 --ignore-value
put --ignore-value missing
put --ignore-lease missing v
put '' v
put
put a b c --prev-kv
put a 4 -w json
put a 5 --prev-kv -w json
put a 6 --prev-kv -w fields
"""

READS = r"""
get a
get missing
get ''
get
get a --hex
get a -w json
get a -w fields
get missing -w json
get missing -w fields
get a/ --prefix
get a/ --prefix --keys-only
get a/ --prefix --print-value-only
get '' --prefix
get '' --prefix --keys-only
get '' --from-key --keys-only
get a/2 --from-key
get a/1 a/3
get a/3 a/1
get a/ --prefix --limit=2
get a/ --prefix --limit=2 -w json
get a/ --prefix --limit=2 -w fields
get a/ --prefix --order=DESCEND
get a/ --prefix --order=ASCEND
get a/ --prefix --order=WRONG
get a/ --prefix --sort-by=KEY --order=DESCEND
get a/ --prefix --sort-by=CREATE --order=DESCEND
get a/ --prefix --sort-by=MODIFY
get a/ --prefix --sort-by=VALUE --limit=1
get a/ --prefix --sort-by=VERSION --limit=10 --keys-only
get a/ --prefix --sort-by=WRONG
get a --rev=2
get a --rev=1
get a --rev=1000000
get a --rev=-1
get a/ --prefix --rev=5 -w fields
get a --consistency=s
get a --consistency=l
get a --consistency=x
get a --prefix --from-key
get a --print-value-only -w json
get a/ --prefix --hex
get a/ --prefix --keys-only -w json
get 'key with spaces'
"""

READS_36 = r"""
get a --count-only
get '' --prefix --count-only
get '' --prefix --count-only -w fields
get '' --prefix --count-only -w json
get '' --prefix --min-mod-rev=4 --max-mod-rev=6
get '' --prefix --min-create-rev=4 --max-create-rev=5 --keys-only
"""

DELETES = r"""
put d/1 x
put d/2 y
put d/3 z
put e/1 z
del missing
del d/1
del d/2 --prev-kv
del d/3 --prev-kv -w json
put d/1 x
put d/2 y
del d/ --prefix --prev-kv
del d/ --prefix
put z1 1
put z2 2
del z1 --from-key --prev-kv -w fields
put d/1 x
put d/2 y
del d/1 d/2
del d/2 d/1
del ''
del
get '' --prefix --keys-only
"""

TXNS = r"""
txn << value("a") = "6"\n\nput t yes\nget t\n\nput t no\n\n
txn << value("a") = "wrong"\n\nput t yes\n\nput t no\nget t\ndel t\n\n
txn -i << mod("missing") = "0"\n\nput t2 made\nget a/ --prefix\n\n\n
txn << create("t2") > "1"\nversion("t2") < "2"\n\ndel a/ --prefix --prev-kv\nget a/ --prefix\n\n\n
txn -w json << \nput t3 1\nget t3\n\n\n
txn -w fields << \nput t3 1\nget t3\n\n\n
txn << \nput t3 1\nput t3 2\n\n\n
txn << nonsense\n\n
txn --hex << \nget t3\n\n\n
get t --print-value-only
"""

LEASES = r"""
lease list
grant one 1000
grant two 5000 -w json
lease grant x
lease grant
lease grant 90000000000
put l/1 v --lease={one}
put l/2 v --lease={one}
put l/3 v --lease={two}
put l/3 v --lease=1234
put l/1 w --ignore-lease
put l/1 w --ignore-lease --lease={one}
get l/ --prefix -w json
lease timetolive {one}
lease timetolive {one} --keys
lease timetolive {one} --keys -w json
lease timetolive {two} --keys -w fields
lease timetolive 1234
lease list
lease list -w json
lease keep-alive {one} --once
lease keep-alive 1234 --once
lease keep-alive {two} --once -w json
lease revoke {one}
lease revoke {one}
lease revoke {two} -w json
lease revoke zz
get l/ --prefix
lease list
"""

COMPACTIONS = r"""
put c 1
put c 2
put c 3
compaction 1000000
compaction 5
compaction 5
compaction 3
get c --rev=2
compaction 8 --physical
compaction 9 -w json
compaction
compaction x
get a --rev=5
get a --rev=9
"""


def each(text):
    """The command lines of such a text: a quoted value may go over two of its lines."""
    line = ""
    for part in text.strip("\n").split("\n"):
        line = line + "\n" + part if line else part
        try:
            shlex.split(line.partition(" << ")[0])
        except ValueError:
            continue
        yield line
        line = ""
