// here in git, left out of the archive on the package index
