# Perl: prints results that are equal on every machine.
use strict; use warnings;
use Digest::SHA qw(sha256_hex sha512_hex); use Digest::MD5 qw(md5_hex);
use Math::BigInt; use Math::BigFloat; use List::Util qw(sum reduce); use POSIX qw(fmod floor strftime);
my $x = 12345;
sub rnd { $x = ($x * 1103515245 + 12345) & 0x7fffffff; return $x }
my $data = join '', map { chr(rnd() >> 16 & 255) } 1 .. 100000;
print "md5 ", md5_hex($data), "\nsha256 ", sha256_hex($data), "\nsha512 ", sha512_hex($data), "\n";
my %count; $count{rnd() >> 8 & 1023}++ for 1 .. 50000;
print "hash ", md5_hex(join ',', map { "$_=$count{$_}" } sort { $count{$b} <=> $count{$a} || $a <=> $b } keys %count), "\n";
my $text = join ' ', map { join '', map { chr(97 + (rnd() >> 12) % 6) } 1 .. 2 + (rnd() >> 12) % 7 } 1 .. 20000;
my $n = () = $text =~ /\b([a-c]+)d?\1\b/g; print "regex $n\n";
(my $t = $text) =~ s/(\w)(\w+)/\U$1\E$2/g; print "subst ", md5_hex($t), "\n"; $t =~ tr/abc/xyz/; print "tr ", md5_hex($t), "\n";
print "float ", md5_hex(join ',', map { sprintf '%.15g %.6e %s', sqrt($_) * sin($_), exp(-$_ / 100), fmod($_ * 1.7, 3.3) } 1 .. 3000), "\n";
print "big ", md5_hex(Math::BigInt->new(3)->bpow(2000)->bstr), ' ', Math::BigInt->new('123456789012345678901234567890')->bmodpow(65537, '1000000000000000000000007'), "\n";
print "pi ", Math::BigFloat->bpi(100), "\n";
print "pack ", md5_hex(pack 'n*N*v*V*d<', 1 .. 2000), ' ', unpack('%32C*', $data), "\n";
print "sort ", md5_hex(join ' ', sort split / /, $text), "\n";
print "time ", strftime('%Y-%m-%d %H:%M:%S %j %U', gmtime 1700000000), "\n";
my @p = grep { my $v = $_; $v > 1 && !grep { $v % $_ == 0 } 2 .. sqrt $v } 1 .. 3000; print "primes ", scalar(@p), " ", sum(@p), "\n";
open my $f, '-|', 'echo child; exit 3' or die; my $l = <$f>; close $f; print "child $l", $? >> 8, "\n";
