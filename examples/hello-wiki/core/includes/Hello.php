<?php
/** Greets in the language that was asked for, else in English. */
class Hello {
	public static function greet( string $language ): string {
		$messages = [];
		foreach ( [ $language, 'en' ] as $code ) {
			$file = __DIR__ . "/../languages/i18n/$code.json";
			if ( is_file( $file ) ) {
				$messages += json_decode( file_get_contents( $file ), true );
			}
		}
		return $messages['hello'];
	}
}
