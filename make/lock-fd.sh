# shellcheck shell=sh
# lock_fd FD s|x SECONDS: take a shared or exclusive lock on an open file descriptor; false when it
# is not free in time. Sourced; perl stands in where util-linux is not at hand (macOS).

lock_fd() {
    if command -v flock >/dev/null 2>&1; then
        flock "-$2" -w "$3" "$1"
    else
        perl -MFcntl=:flock -e '
            my ($fd, $mode, $wait) = @ARGV;
            open(my $file, ">>&=", $fd) or exit 2;
            my $flag = ($mode eq "s" ? LOCK_SH : LOCK_EX) | LOCK_NB;
            my $until = time + $wait;
            until (flock($file, $flag)) {
                exit 1 if time >= $until;
                select(undef, undef, undef, 0.2);
            }' "$@"
    fi
}
