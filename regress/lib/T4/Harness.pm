# T4/Harness.pm - prove's own harness, and with CI=true a skipped test counts as a failure.
#
# A test that is skipped shows nothing, and in CI everything that a test may ask for is
# installed: a skip there means that something was forgotten.  Used by the Makefile:
# prove --harness T4::Harness.
#
# SPDX-License-Identifier: Apache-2.0
package T4::Harness;

use strict;
use warnings;
use parent 'TAP::Harness';

sub make_parser {
    my ($self, @args) = @_;
    my ($parser, $session) = $self->SUPER::make_parser(@args);
    my $fail = sub {
        my ($result) = @_;
        return unless $result->has_skip;
        $parser->_add_error("CI=true, and skipped: " . $result->as_string);
    };
    if (($ENV{CI} // '') eq 'true') {
        $parser->callback(test => $fail);
        $parser->callback(plan => $fail);
    }
    return ($parser, $session);
}

1;
