"""compare.py - whether two servers gave the same answer, field by field, and what is excused.

Responsible for: translating the ids that servers choose (cluster, member, leases) between the
two, bringing what etcd leaves open into one order, listing the fields that differ, and the
exceptions of exceptions.txt.

Entry points: Ids, Exceptions, normalise(), differences().

SPDX-License-Identifier: Apache-2.0
"""

import fnmatch
import re

from etcdclient import api

_SORTED_BY = {1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}


class Failure:
    """An error status as an answer."""

    def __init__(self, code, text):
        self.code = code
        self.text = text

    def __str__(self):
        return "error %s: %s" % (self.code, self.text)


# ---- ids --------------------------------------------------------------------------------------

class Ids:
    """What the subject calls the things that each server names by itself.

    Requests and answers are in the reference's ids everywhere in the test; to_subject() and
    from_subject() translate at the subject's door.
    """

    def __init__(self):
        self.subject_leases = {}
        self.reference_leases = {}
        self.identity = {}
        self.subject_members = {}       # id, and peer URL without its scheme, of the only one
        self.reference_members = {}

    def learn_lease(self, reference, subject):
        self.subject_leases[reference] = subject
        self.reference_leases[subject] = reference

    def learn_identity(self, reference, subject):
        """Takes the headers of a first answer: these ids stay for the run."""
        for field in ("cluster_id", "member_id"):
            self.identity[field] = (getattr(reference, field), getattr(subject, field))

    def learn_member(self, reference, subject):
        for one, other in ((reference.ID, subject.ID),
                           (reference.peerURLs[0][4:], subject.peerURLs[0][4:])):
            self.subject_members[one] = other
            self.reference_members[other] = one

    def to_subject(self, message):
        return _translate(message, self.subject_leases, {}, self.subject_members)

    def from_subject(self, message):
        return _translate(message, self.reference_leases, self.identity,
                          self.reference_members)


def _translate(message, leases, identity, members):
    if not leases and not identity and not members:
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _rewrite(copy, leases, identity, members)
    return copy


def _is_map(field):
    return field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry


def _rewrite(message, leases, identity, members):
    of_lease = message.DESCRIPTOR.name.startswith("Lease")
    of_member = message.DESCRIPTOR.name.startswith(("Member", "MoveLeader"))
    for field, value in message.ListFields():
        if _is_map(field):
            continue    # Health/List: there are no ids in it
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.label == field.LABEL_REPEATED else [value]:
                _rewrite(part, leases, identity, members)
        elif field.name == "lease" or (field.name == "ID" and of_lease):
            if value in leases:
                setattr(message, field.name, leases[value])
        elif field.name == "peerURLs":
            for one, other in members.items():
                if isinstance(one, str):
                    value[:] = [url.replace(one, other) for url in value]
        elif of_member and field.name in ("ID", "targetID"):
            setattr(message, field.name, members.get(value, value))
        elif field.name in identity and identity[field.name][1] == value:
            setattr(message, field.name, identity[field.name][0])


# ---- what the API leaves open -----------------------------------------------------------------

def normalise(request, answer):
    """Brings the parts whose order etcd does not promise into one order, in place."""
    if isinstance(request, api.RangeRequest):
        _normalise_range(request, answer)
    elif isinstance(request, api.TxnRequest):
        branch = request.success if answer.succeeded else request.failure
        for operation, result in zip(branch, answer.responses):
            kind = operation.WhichOneof("request")
            kind_of_result = result.WhichOneof("response")
            if kind and kind_of_result == kind.replace("request", "response"):
                normalise(getattr(operation, kind), getattr(result, kind_of_result))
    elif isinstance(request, api.LeaseTimeToLiveRequest):
        answer.keys.sort()
    elif isinstance(request, api.AlarmRequest):
        answer.alarms.sort(key=lambda alarm: (alarm.memberID, alarm.alarm))
    elif isinstance(request, api.StatusRequest):
        answer.errors.sort()


def _normalise_range(request, answer):
    """Sorts ties by key.  A limit that cuts a group of ties leaves open which of it are shown:
    of the last group then only the value sorted by remains."""
    by = _SORTED_BY.get(request.sort_target)
    if by is None or not answer.kvs:
        return
    cut = 0 < request.limit and answer.more
    if by == "value" and request.keys_only:
        # The value that decides is not in the answer.
        kvs = sorted(answer.kvs, key=lambda kv: kv.key)
        groups = [[api.KeyValue() for _ in kvs] if cut else kvs]
    else:
        groups = []
        for kv in answer.kvs:
            if groups and getattr(groups[-1][0], by) == getattr(kv, by):
                groups[-1].append(kv)
            else:
                groups.append([kv])
        for group in groups:
            group.sort(key=lambda kv: kv.key)
        if cut:
            groups[-1] = [api.KeyValue(**{by: getattr(kv, by)}) for kv in groups[-1]]
    ordered = api.RangeResponse(kvs=[kv for group in groups for kv in group])
    del answer.kvs[:]
    answer.kvs.extend(ordered.kvs)


# ---- comparing --------------------------------------------------------------------------------

def differences(reference, subject):
    """[(path, reference's value, subject's value)] of every field that is not the same."""
    if isinstance(reference, Failure) or isinstance(subject, Failure):
        if not (isinstance(reference, Failure) and isinstance(subject, Failure)):
            return [("status", _brief(reference), _brief(subject))]
        found = []
        if reference.code != subject.code:
            found.append(("status.code", reference.code, subject.code))
        if reference.text != subject.text:
            found.append(("status.text", reference.text, subject.text))
        return found
    if reference == subject:
        return []
    found = []
    _compare("", reference, subject, found)
    return found


def _brief(answer):
    return str(answer) if isinstance(answer, Failure) else "OK"


def _compare(path, reference, subject, found):
    for oneof in reference.DESCRIPTOR.oneofs:
        names = [message.WhichOneof(oneof.name) for message in (reference, subject)]
        if names[0] != names[1]:
            found.append((path + oneof.name, names[0], names[1]))
    for field in reference.DESCRIPTOR.fields:
        here = path + field.name
        one, other = getattr(reference, field.name), getattr(subject, field.name)
        message = field.type == field.TYPE_MESSAGE
        if _is_map(field):
            one, other = ({key: str(entries[key]) for key in entries} for entries in (one, other))
            if one != other:
                found.append((here, one, other))
        elif field.label == field.LABEL_REPEATED:
            if len(one) != len(other):
                found.append((here + ".length", len(one), len(other)))
            for index, (left, right) in enumerate(zip(one, other)):
                there = "%s[%d]" % (here, index)
                if message:
                    _compare(there + ".", left, right, found)
                elif left != right:
                    found.append((there, left, right))
        elif message:
            present = reference.HasField(field.name), subject.HasField(field.name)
            if present[0] != present[1]:
                found.append((here + ".present", present[0], present[1]))
            elif present[0]:
                _compare(here + ".", one, other, found)
        elif one != other:
            found.append((here, one, other))


# ---- exceptions -------------------------------------------------------------------------------

class Exception_:
    def __init__(self, line):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 6 or not parts[5]:
            raise ValueError("exceptions.txt: six columns are needed, reason last: " + line)
        (self.version, self.name, self.contains, self.path, self.rule, self.reason) = parts
        self.line = line
        self.used = 0
        if self.rule.split()[0] not in ("ignore", "nonzero", "zero", "within", "text", "subject",
                                        "avoid", "sequence"):
            raise ValueError("exceptions.txt: unknown rule: " + line)

    def excuses(self, name, request, difference):
        path, reference, subject = difference
        if not fnmatch.fnmatchcase(name, self.name):
            return False
        if not fnmatch.fnmatchcase(re.sub(r"\[\d+\]", "", path), self.path):
            return False
        if self.contains and not re.search(self.contains, str(request)):
            return False
        rule, _, argument = self.rule.partition(" ")
        if rule == "ignore":
            return True
        if rule == "nonzero":
            return bool(reference) and bool(subject)
        if rule == "zero":
            return not reference or not subject
        if rule == "within":
            return abs(reference - subject) <= int(argument)
        if rule == "text":
            return re.search(argument, subject) is not None
        if rule == "subject":
            return re.search(argument, str(subject)) is not None
        return False


class Exceptions:
    """The tolerated differences, from exceptions.txt, for one version of the reference."""

    def __init__(self, path, version):
        self.lines = []
        self.avoided = set()
        self.sequences = set()
        with open(path) as text:
            for line in text:
                line = line.rstrip("\n")
                if not line.strip() or line.startswith("#"):
                    continue
                exception = Exception_(line)
                if not fnmatch.fnmatchcase(version, exception.version):
                    continue
                if exception.rule.startswith("avoid "):
                    self.avoided.add(exception.rule.split()[1])
                elif exception.rule.startswith("sequence "):
                    self.sequences.add(exception.rule.split()[1])
                else:
                    self.lines.append(exception)

    def remaining(self, name, request, found):
        """The differences that nothing excuses."""
        left = []
        for difference in found:
            for exception in self.lines:
                if exception.excuses(name, request, difference):
                    exception.used += 1
                    break
            else:
                left.append(difference)
        return left
