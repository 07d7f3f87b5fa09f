#!/usr/bin/env bash
# Print the command that README.md shows under a marker, so that machines run the very text that people paste.
#
#   ci/readme_command.sh try-it|test-it [README]
#
# The command is the first fenced block after the line `<!-- MARKER -->`.
set -euo pipefail

marker=${1:?usage: ci/readme_command.sh try-it|test-it [README]}
readme=${2:-$(dirname "$0")/../README.md}

command=$(awk -v marker="<!-- $marker -->" '
  $0 == marker { wanted = 1; next }
  wanted && /^```/ { if (inside) exit; inside = 1; next }
  inside { sub(/^\$ /, ""); print }
' "$readme")
if [[ -z $command ]]; then
  echo "$readme shows no command under <!-- $marker -->" >&2
  exit 1
fi
printf '%s\n' "$command"
