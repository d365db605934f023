# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of blockjobctl(1) for fish. The program itself says what can follow; where
# it says nothing, a file may be meant.

function __blockjobctl_candidates
    set -l words (commandline -opc) (commandline -ct)
    blockjobctl complete $words[2..-1] 2>/dev/null
end

complete -c blockjobctl -f -n 'test -n "$(__blockjobctl_candidates)"'
complete -c blockjobctl -a '(__blockjobctl_candidates)'
