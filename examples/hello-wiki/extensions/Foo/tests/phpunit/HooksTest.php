<?php
// Development files like this one stay out of the image.
namespace MediaWiki\Extension\Foo\Tests;
