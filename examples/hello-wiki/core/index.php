<?php
// A stub of MediaWiki's entry point, enough to show where core goes.
require __DIR__ . '/includes/Hello.php';
echo Hello::greet( $argv[1] ?? 'en' ), "\n";
