<?php
// The settings of the example wiki. They become LocalSettings.php in //:wiki.
$wgSitename = 'Hello wiki';
$wgLanguageCode = 'en';
wfLoadExtension( 'Bar' );
wfLoadExtension( 'Foo' );
wfLoadSkin( 'Plain' );
