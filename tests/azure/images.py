"""A small image that serves HTTP, for tests of what runs containers: the repository's base and a script.

It answers GET with its environment as JSON; `/exit` ends it, `/health` is 503 for `SICK` seconds.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import docker

SERVER = r"""
use strict; use IO::Socket::INET;
$| = 1; my $begin = time; my $port = $ENV{PORT} || 5001;
print "listening on $port\n";
my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 64, ReuseAddr => 1) or die;
$SIG{TERM} = sub { exit 0 };
while (my $client = $server->accept) {
    my $line = <$client> // next; my ($method, $path) = split ' ', $line;
    while (my $head = <$client>) { last if $head eq "\r\n" }
    print "$method $path\n";
    exit 3 if $path eq '/exit';
    my $sick = $path eq '/health' && time < $begin + ($ENV{SICK} || 0);
    my $file = '';
    if ($path =~ m{^/file(/.*)} && open my $in, '<', $1) { local $/; $file = <$in> }
    my $body = '{' . join(',', map { "\"$_\":\"$ENV{$_}\"" } grep { $_ ne 'PATH' } sort keys %ENV) . '}';
    $body = $file if $path =~ m{^/file/};
    my $status = $sick ? '503 Sick' : '200 OK';
    print $client "HTTP/1.1 $status\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
}
"""
NAME = "slipway-standin-test-server"


def server_image(root: Path) -> str:
    """The image's id; made if it is not there."""
    made = subprocess.run(
        [root / "docker" / "base.sh"], check=True, cwd=root, stdout=subprocess.PIPE
    )
    base, client = made.stdout.decode().strip(), docker.from_env()
    files = {
        "Dockerfile": f'FROM {base}\nCOPY server.pl /server.pl\nCMD ["perl", "/server.pl"]\n',
        "server.pl": SERVER,
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    image, _ = client.images.build(fileobj=context, custom_context=True, tag=NAME, rm=True)
    return str(image.id)
