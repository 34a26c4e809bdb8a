<?php
namespace MediaWiki\Extension\Foo;

class Hooks {
	public static function onBeforePageDisplay( $out ): void {
		$out->addSubtitle( wfMessage( 'foo-hello' ) );
	}
}
