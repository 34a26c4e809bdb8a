<?php
namespace MediaWiki\Extension\Bar;

class Hooks {
	public static function onBeforePageDisplay( $out ): void {
		$out->addSubtitle( wfMessage( 'bar-hello' ) );
	}
}
