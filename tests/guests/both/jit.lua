-- Traces that LuaJIT compiles, throws away and compiles again. usage: luajit jit.lua ROUNDS; prints one checksum. The same by -joff.
local bit = require("bit")
local h = 17
for r = 1, tonumber(arg[1]) do
	local f = loadstring(string.format([[local a, t = ... local s = %d
		for i = 1, 2000 do
			local v = t[i %% 16 + 1]
			if i %% %d == 0 then s = bit.bxor(s, a * 3) else s = bit.tobit(bit.rol(s, 5) + v * %d) end
		end
		return s]], r, r % 7 + 2, r))
	local t = {}
	for i = 1, 16 do t[i] = i * r + (r % 5 == 0 and 2^33 or 0) end
	for i = 1, 8 do h = bit.bxor(bit.rol(h, 7), f(i, t)) end
	if r % 16 == 0 then
		local parts = {}
		for i = 1, 200 do parts[#parts + 1] = tostring(i * r) .. (i % 3 == 0 and "x" or "yz") end
		for c in table.concat(parts):gmatch("%d+x") do h = bit.bxor(bit.rol(h, 3), #c * 131 + c:byte(1)) end
		if jit.status() then jit.flush() end
	end
end
print(bit.tohex(h))
