<?php
// Settings for MediaWiki's own compiler, without a wiki and without a database, for bench/l10n and internal/livetest. Components
// register as mwbuild's //:l10n lists them.
$wgServer = 'http://localhost';
$wgDBtype = 'sqlite';
$wgSQLiteDataDir = sys_get_temp_dir();
$wgSecretKey = 'none';
$wgMainCacheType = CACHE_NONE;
$wgLocalisationCacheConf['storeClass'] = getenv( 'STORE' );
$wgLocalisationCacheConf['storeDirectory'] = getenv( 'OUT' );
$wgLocalisationCacheConf['manualRecache'] = true;
foreach ( [ ...glob( "$IP/extensions/*/extension*.json" ), ...glob( "$IP/skins/*/skin.json" ) ] as $manifest ) {
	$component = json_decode( file_get_contents( $manifest ), true );
	$here = dirname( $manifest );
	foreach ( [ 'MessagesDirs', 'TranslationAliasesDirs' ] as $dirs ) {
		foreach ( $component[$dirs] ?? [] as $key => $names ) {
			foreach ( (array)$names as $name ) {
				$GLOBALS["wg$dirs"][$key][] = "$here/$name";
			}
		}
	}
	foreach ( $component['ExtensionMessagesFiles'] ?? [] as $key => $name ) {
		$wgExtensionMessagesFiles[$key] = "$here/$name";
	}
	foreach ( $component['namespaces'] ?? [] as $namespace ) {
		if ( isset( $namespace['constant'] ) && !defined( $namespace['constant'] ) ) {
			define( $namespace['constant'], $namespace['id'] );
		}
	}
}
