#!/usr/bin/perl
# 001_structure.t - the tree keeps the layering of src/LAYERS, and this test notices when not.
#
# 1. src: a folder includes only the folders that its line in LAYERS names, by
#    "folder/name.h", and no name_int.h of another folder; no "..", no header of the operating
#    system in a pure folder, no file past 1,500 lines.  Plugins include t4_plugin.h and system
#    headers only.
# 2. The same from the objects: no folder calls a function of a folder it may not include, and
#    pure folders do not ask the system for time, files, threads or chance.
# 3. A plugin exports its entry point and nothing else; the server exports nothing; libt4.so and
#    libt4.a have the functions that t4.h declares.
# 4. Every header compiles alone, the public ones also as C99 and C++11, pedantically.
# 5. Every folder of LAYERS, of plugins and of contrib has a README.md, which names each of its
#    sources and no file that is not there.
# 6. There and in sql-like-docs/internals `file.c: function, function` names functions that the file
#    has, and `function()` one that some source has.
# Each rule is first tried on a small tree that breaks it.
#
# SPDX-License-Identifier: Apache-2.0
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Find qw(find);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $MAX_LINES = 1500;
my %ISO = map { ("$_.h" => 1) } qw(assert ctype errno float inttypes limits math stdalign stdarg
    stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string);
# What a pure folder must not call, whoever declares it.  (env's mutexes are inline functions.)
my $SYSTEM_CALLS = qr/^(?:time|clock_gettime|gettimeofday|nanosleep|usleep|sleep|rand|random|
    getrandom|getentropy|open|openat|read|write|pread|pwrite|close|fopen|fsync|fdatasync|rename|
    unlink|mmap|socket|connect|accept|poll|select|epoll_\w+|eventfd|pthread_create|thrd_\w+|fork|
    exec\w+|system|getenv|dlopen)(?:64)?$/x;

my $src_dir = $ENV{T4_SRC_DIR} // dirname(dirname(dirname(__FILE__)));
my $build_dir = $ENV{T4_BUILD_DIR};
my $cc = $ENV{CC} // 'cc';
my $cxx = $ENV{CXX} // 'c++';

sub slurp_lines {
    my ($path) = @_;
    open my $in, '<', $path or die "$path: $!";
    return <$in>;
}

sub files_below {
    my ($dir, $pattern) = @_;
    my @found;
    return () unless -d $dir;
    find({ no_chdir => 1, wanted => sub { push @found, $_ if -f && $_ =~ $pattern } }, $dir);
    return sort @found;
}

# LAYERS: "folder [P] : folders it may include".  Returns (rules, complaints).
sub read_layers {
    my ($root) = @_;
    my (%rule, @wrong);
    return ({}, ['src/LAYERS is missing']) unless -f "$root/src/LAYERS";
    for my $line (slurp_lines("$root/src/LAYERS")) {
        $line =~ s/#.*//;
        next unless $line =~ /\S/;
        my ($folder, $pure, $below) = $line =~ m{^([\w/]+)\s+(P\s+)?:\s*([\w/ ]*?)\s*$};
        if (!defined $folder) {
            push @wrong, "LAYERS: cannot read '$line'";
            next;
        }
        push @wrong, "LAYERS: $folder stands there twice" if $rule{$folder};
        my %may = map { $_ => 1 } split ' ', $below;
        for my $other (sort keys %may) {
            push @wrong, "LAYERS: $folder names $other, which does not stand above it"
                unless $rule{$other};
        }
        $rule{$folder} = { pure => !!$pure, may => \%may };
        push @wrong, "LAYERS: there is no folder src/$folder"
            unless -d "$root/src/$folder" || $folder eq 'pb';
    }
    return (\%rule, \@wrong);
}

# The longest folder of LAYERS that a path below src begins with.
sub folder_of {
    my ($rule, $path) = @_;
    my $dir = dirname($path);
    $dir = dirname($dir) while $dir ne '.' && !$rule->{$dir};
    return $dir eq '.' ? undef : $dir;
}

# Each entry: [line number, kind of include, name].
sub includes_of {
    my (@lines) = @_;
    my @found;
    for my $n (0 .. $#lines) {
        next unless $lines[$n] =~ /^\s*#\s*include\s*([<"])([^>"]+)[>"]/;
        push @found, [ $n + 1, $1, $2 ];
    }
    return @found;
}

sub source_problems {
    my ($root) = @_;
    my ($rule, $wrong) = read_layers($root);
    my @problems = @$wrong;
    for my $path (files_below("$root/src", qr/\.(?:[ch]|tbl)$/)) {
        my $name = substr $path, length "$root/src/";
        next if $name =~ m{^pb/}; # generated, when the build is in the source tree
        my @lines = slurp_lines($path);
        push @problems, sprintf('src/%s: %d lines, more than %d', $name, scalar @lines, $MAX_LINES)
            if @lines > $MAX_LINES;
        my $folder = folder_of($rule, $name);
        if (!defined $folder) {
            push @problems, "src/$name: its folder has no line in LAYERS";
            next;
        }
        for my $include (includes_of(@lines)) {
            my ($line, $kind, $what) = @$include;
            my $here = "src/$name:$line";
            if ($what =~ m{(?:^|/)\.\.?(?:/|$)}) {
                push @problems, "$here: include of $what climbs through folders";
            } elsif ($folder eq 'include' && -f "$root/src/include/$what") {
                next; # installed side by side
            } elsif ($kind eq '<') {
                push @problems, "$here: $folder is pure and includes <$what>"
                    if $rule->{$folder}{pure} && !$ISO{$what} && $what !~ /(?:intrin|cpuid)\.h$/;
            } else {
                my $other = folder_of($rule, $what);
                if (!defined $other) {
                    push @problems, "$here: \"$what\" is not \"folder/name.h\" of LAYERS";
                } elsif ($other ne $folder && !$rule->{$folder}{may}{$other}) {
                    push @problems, "$here: $folder may not include $other";
                } elsif ($other ne $folder && $what =~ /_int\.h$/) {
                    push @problems, "$here: $what is private to $other";
                }
            }
        }
    }
    for my $path (files_below("$root/plugins", qr/\.[ch]$/)) {
        my @lines = slurp_lines($path);
        my $name = substr $path, length "$root/";
        push @problems, sprintf('%s: %d lines, more than %d', $name, scalar @lines, $MAX_LINES)
            if @lines > $MAX_LINES;
        for my $include (includes_of(@lines)) {
            my ($line, $kind, $what) = @$include;
            next if $kind eq '<' && !-e "$root/src/$what" || $what eq 't4_plugin.h';
            next if $kind eq '"' && $what !~ m{/} && -f dirname($path) . "/$what";
            # A part that several plugins are made of: plugins/<name>_common.
            next if $kind eq '"' && $what =~ m{^\w+_common/\w+\.h$} && -f "$root/plugins/$what";
            push @problems, "$name:$line: a plugin includes $what, not only t4_plugin.h";
        }
    }
    return @problems;
}

my @PLACES = ('src/', 'src/include/', '', 'plugins/', 'sql-like-docs/', 'regress/', 'regress/unit/', 'regress/t/');

# What a page has in backquotes; blocks of code do not count.
sub quoted {
    my ($page) = @_;
    my $text = join('', slurp_lines($page)) =~ s/^```.*?^```$//msgr;
    return map { s/\s+/ /gr } $text =~ /`([^`]+)`/g;
}

# Files that are named, as "name.c", "folder/name.h" or "name.c: function, function".
sub named_files {
    return map { m{^([\w./-]+\.(?:c|h|tbl|t|py|md|pml|map|in))(?::\s|$)} ? $1 : () } quoted(@_);
}

sub path_of {
    my ($root, $folder, $name) = @_;
    my ($found) = grep { -e "$root/$_$name" } "$folder/", @PLACES;
    return defined $found ? "$root/$found$name" : undef;
}

sub function_problems {
    my ($root) = @_;
    my (%words, @problems);
    my $words_of = sub { # functions that a file defines; "": what looks like a function anywhere
        my ($path) = @_;
        return $words{$path} //= { map { $_ => 1 } join('', slurp_lines($path)) =~ /^(\w+)\(/gm } if $path ne '';
        return $words{''} //= { map { $_ => 1 } map { join('', slurp_lines($_)) =~ /(\w+)\(/g }
                map { files_below("$root/$_", qr/\.[ch]$/) } qw(src plugins contrib regress) };
    };
    for my $page (files_below("$root/sql-like-docs/internals", qr/\.md$/),
        map { files_below("$root/$_", qr/README\.md$/) } qw(src plugins contrib)) {
        my $here = substr $page, length "$root/";
        for my $words (quoted($page)) {
            if (my ($name) = $words =~ /^(\w+)\(\)$/) {
                push @problems, "$here: there is no $name()" unless $words_of->('')->{$name};
            } elsif (my ($file, $names) = $words =~ m{^([\w/]+\.c): ([\w, >-]+)$}) {
                my $path = path_of($root, dirname($here), $file);
                push @problems, "$here: there is no $file" unless defined $path;
                push @problems, map { "$here: $file has no $_" } grep { defined $path && !$words_of->($path)->{$_} }
                    $names =~ /\w+/g;
            }
        }
    }
    return @problems;
}

sub readme_problems {
    my ($root) = @_;
    my ($rule) = read_layers($root);
    my @folders = ((map { "src/$_" } grep { $_ ne 'pb' && -d "$root/src/$_" } keys %$rule),
        map { substr $_, length "$root/" } grep { -d } glob "$root/plugins/* $root/contrib/*");
    my @problems;
    for my $folder (sort @folders) {
        my $readme = "$root/$folder/README.md";
        if (!-f $readme) {
            push @problems, "$folder has no README.md";
            next;
        }
        my %named = map { $_ => 1 } map { /\b(\w+\.c)\b/g } # the list of a private header counts, too
            map { join('', slurp_lines($_)) =~ m{^(/\*.*?\*/)}s } glob "$root/$folder/*_int.h";
        for my $name (named_files($readme)) {
            $named{$1} = 1 if $name =~ m{([^/]+)$};
            push @problems, "$folder/README.md: there is no $name" unless path_of($root, $folder, $name);
        }
        push @problems, map { "$folder/README.md does not name $_" } grep { !$named{$_} }
            map { substr $_, length "$root/$folder/" } glob "$root/$folder/*.c";
    }
    return @problems;
}

# $symbols: { folder => { defined => {name => 1}, undefined => {name => 1} } }.
sub call_problems {
    my ($rule, $symbols) = @_;
    my (%owner, @problems);
    for my $folder (keys %$symbols) {
        $owner{$_} = $folder for keys %{ $symbols->{$folder}{defined} };
    }
    for my $folder (sort keys %$symbols) {
        for my $name (sort keys %{ $symbols->{$folder}{undefined} }) {
            my $other = $owner{$name};
            if (defined $other) {
                push @problems, "$folder calls $name of $other"
                    if $other ne $folder && !$rule->{$folder}{may}{$other};
            } elsif ($rule->{$folder}{pure} && $name =~ $SYSTEM_CALLS) {
                push @problems, "$folder is pure and calls $name";
            }
        }
    }
    return @problems;
}

sub read_symbols {
    my ($rule, $build, $src) = @_;
    my %symbols;
    for my $object (files_below("$build/src", qr/\.o$/)) {
        my $name = substr $object, length "$build/src/";
        (my $source = $name) =~ s/\.o$/.c/;
        next unless $name =~ m{^pb/} || -f "$src/src/$source"; # left over from a removed file
        my $folder = folder_of($rule, $name) // next;
        open my $nm, '-|', 'nm', '-P', $object or die "nm: $!";
        while (<$nm>) {
            my ($symbol, $type) = split ' ';
            $symbols{$folder}{ $type =~ /^[Uw]$/ ? 'undefined' : 'defined' }{$symbol} = 1
                if $type =~ /^[A-Zw]$/;
        }
    }
    return \%symbols;
}

sub exported {
    my ($object) = @_;
    open my $nm, '-|', 'nm', '-D', '-P', '--defined-only', $object or die "nm: $!";
    # A coverage build adds its own.
    return sort grep { !/^(?:__|_init$|_fini$|mangle_path$)/ } map { (split ' ')[0] } <$nm>;
}

# Returns the compiler's complaint, or nothing.
sub compile_problem {
    my ($root, $header, $compiler, $language, $standard) = @_;
    my @pb = defined $build_dir ? ("-I$build_dir/src", '-iquote', "$build_dir/src/pb") : ();
    my @command = ($compiler, '-x', $language, "-std=$standard", '-fsyntax-only', '-Wall', ($standard eq 'gnu11' ? () : ('-pedantic', '-Werror')),
        '-Wno-pragma-once-outside-header', '-D_GNU_SOURCE', "-I$root/src", @pb, $header);
    my $pid = open my $out, '-|';
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        exec @command or print("$compiler: $!\n"), exit 1;
    }
    my @lines = <$out>;
    close $out;
    return $? == 0 ? () : ("$header as $standard: " . ($lines[0] // 'fails'));
}

sub none {
    my ($what, @problems) = @_;
    ok(!@problems, $what) or diag(join "\n", map { s/\n+$//r } @problems);
}

# A tree that keeps the rules, as text; the toys below change one file of it.
my %toy = (
    'src/LAYERS' => "# a toy\ninclude P :\nlow P : include\nmid : include low\nhigh : mid\n",
    'src/include/t4_plugin.h' => "#include <stdint.h>\n",
    'src/low/low.h' => "#include <stdint.h>\n#include \"include/t4_plugin.h\"\n",
    'src/low/low.c' => "#include \"low/low.h\"\n#include <string.h>\n",
    'src/mid/mid.h' => "#include \"low/low.h\"\n",
    'src/mid/mid.c' => "#include \"mid/mid.h\"\n#include <unistd.h>\n",
    'src/high/high.c' => "#include \"mid/mid.h\"\n",
    'plugins/q_common/q.h' => "#include <stdint.h>\n",
    'plugins/p/p.h' => "#include <stdint.h>\n",
    'plugins/p/p.c' => "#include \"t4_plugin.h\"\n#include \"p.h\"\n#include <lmdb.h>\n" .
        "#include \"q_common/q.h\"\n",
);

sub toy_tree {
    my (%change) = @_;
    my $root = tempdir(CLEANUP => 1);
    my %files = (%toy, %change);
    for my $name (sort keys %files) {
        make_path(dirname("$root/$name"));
        open my $out, '>', "$root/$name" or die "$root/$name: $!";
        print $out $files{$name};
        close $out;
    }
    return $root;
}

subtest 'the rules are noticed when broken' => sub {
    none('a tree that keeps them is accepted', source_problems(toy_tree()));
    my @toys = (
        [ 'a folder above', 'src/low/low.c', "#include \"mid/mid.h\"\n", qr/low may not include mid/ ],
        [ 'a folder not named', 'src/high/high.c', "#include \"low/low.h\"\n", qr/high may not include low/ ],
        [ 'a private header', 'src/mid/mid.c', "#include \"low/low_int.h\"\n", qr/private to low/ ],
        [ '..', 'src/mid/mid.c', "#include \"../low/low.h\"\n", qr/climbs/ ],
        [ 'no folder', 'src/mid/mid.c', "#include \"mid.h\"\n", qr/not "folder\/name.h"/ ],
        [ 'system header in a pure folder', 'src/low/low.c', "#include <pthread.h>\n", qr/low is pure.*pthread/ ],
        [ 'folder without a line', 'src/new/x.c', "\n", qr/new\/x\.c: its folder has no line/ ],
        [ 'file of 1501 lines', 'src/low/long.c', "\n" x 1501, qr/1501 lines/ ],
        [ 'plugin with an inner header', 'plugins/p/p.c', "#include \"low/low.h\"\n", qr/a plugin includes low/ ],
        [ 'plugin with another one', 'plugins/q/q.c', "#include \"p/p.h\"\n", qr/a plugin includes p/ ],
        [ 'the same in brackets', 'plugins/p/p.c', "#include <low/low.h>\n", qr/a plugin includes low/ ],
        [ 'a circle in LAYERS', 'src/LAYERS', "include P :\nlow : include mid\nmid : low\nhigh : mid\n", qr/not stand above/ ],
        [ 'a folder twice', 'src/LAYERS', $toy{'src/LAYERS'} . "low : include\n", qr/low stands there twice/ ],
    );
    for my $toy (@toys) {
        my ($what, $file, $text, $message) = @$toy;
        my @problems = source_problems(toy_tree($file => $text));
        like(join("\n", @problems), $message, $what);
    }
    my %readme = map { ("$_/README.md" => "`x.h` is not here, `low/low.h: f` is\n") } qw(src/include
        src/low src/mid src/high plugins/p plugins/q_common);
    is_deeply([ readme_problems(toy_tree(%readme, 'src/high/x.h' => '', 'src/low/README.md' => "`low.c`\n",
            'plugins/p/README.md' => "`t4_plugin.h`, `p.c`\n", 'src/include/README.md' => '')) ],
        [ 'plugins/q_common/README.md: there is no x.h', 'src/high/README.md does not name high.c',
            'src/mid/README.md: there is no x.h', 'src/mid/README.md does not name mid.c' ],
        'a README that names what is not there, or not what is');
    delete $readme{'src/mid/README.md'};
    like(join("\n", readme_problems(toy_tree(%readme))), qr/^src\/mid has no README/m, 'a folder without one');
    is_deeply([ function_problems(toy_tree('src/low/low.c' => "int\nlow_f(void)\n{\n    low_g();\n}\n",
            'src/low/README.md' => "`low.c: low_f`, `low/low.c:\nlow_g`, `low_g()`, `low_h()`\n")) ],
        [ 'src/low/README.md: low/low.c has no low_g', 'src/low/README.md: there is no low_h()' ],
        'a function that is not there');
    my ($rule) = read_layers(toy_tree());
    my %calls = (low => { defined => { low_f => 1 }, undefined => { memcpy => 1 } },
        mid => { defined => { mid_f => 1 }, undefined => { low_f => 1, write => 1 } });
    none('calls downwards are accepted', call_problems($rule, \%calls));
    $calls{low}{undefined} = { mid_f => 1, clock_gettime => 1 };
    is_deeply([ call_problems($rule, \%calls) ],
        [ 'low is pure and calls clock_gettime', 'low calls mid_f of mid' ], 'calls upwards are not');
    my $root = toy_tree('src/low/bad.h' => "size_t low_size(void);\n");
    like(join('', compile_problem($root, "$root/src/low/bad.h", $cc, 'c', 'gnu11')),
        qr/size_t/, 'a header that needs another one before it');
};

none('the sources keep src/LAYERS', source_problems($src_dir));
none('every folder has a README.md that knows its files', readme_problems($src_dir));
none('functions that pages name are there', function_problems($src_dir));

my ($layers) = read_layers($src_dir);
if (defined $build_dir) {
    my $symbols = read_symbols($layers, $build_dir, $src_dir);
    ok(scalar(keys %$symbols) > 1, 'objects were found');
    none('the objects keep src/LAYERS', call_problems($layers, $symbols));
    for my $plugin (sort glob "$build_dir/plugins/*.so") {
        is_deeply([ exported($plugin) ], ['t4_plugin_v1'],
            substr($plugin, length "$build_dir/") . ' exports its entry point only');
    }
    my %declared = map { ($_ => 1) } join('', slurp_lines("$src_dir/src/include/t4.h")) =~
        /^T4_API[^;]*?\b(t4_\w+)\(/gm;
    ok(keys %declared > 30, 't4.h declares functions');
    is_deeply([ exported("$build_dir/libt4.so") ], [ sort keys %declared ],
        'libt4.so exports the functions of t4.h only');
    is_deeply([ sort map { (split ' ')[0] } grep { / [TDBRV] / } `nm -g -P --defined-only $build_dir/libt4.a` ],
        [ sort keys %declared ], 'libt4.a, too');
    my @names = -x "$build_dir/t4" ? grep { /^t4_|_(?:open|create|new)$/ } exported("$build_dir/t4") : ();
    is_deeply(\@names, [], 'the server exports none of its functions');
} else {
    note('T4_BUILD_DIR is not set: only the sources are looked at');
}

my @headers = grep { !m{/src/pb/} } files_below("$src_dir/src", qr/\.h$/);
none('every header compiles alone', map { compile_problem($src_dir, $_, $cc, 'c', 'gnu11') } @headers);
my @public = map { "$src_dir/src/include/$_" } qw(t4_plugin.h t4.h);
none('the public ones also as C99', map { compile_problem($src_dir, $_, $cc, 'c', 'c99') } @public);
SKIP: {
    skip("no C++ compiler ($cxx); Debian package g++", 1)
        unless grep { -x "$_/$cxx" } split /:/, $ENV{PATH};
    none('and as C++11', map { compile_problem($src_dir, $_, $cxx, 'c++', 'c++11') } @public);
}

done_testing();
