/**
 * Vectors of 256 bits. WebAssembly has 128, but V8 can make one instruction of two that belong together, which it
 * does only when asked (`--experimental-wasm-revectorize`, x86-64 with AVX2). The result is the same to the bit.
 */

/** The first V8 in which it was seen to work, that of Node 24. */
const FIRST_V8 = 13

/** Asks for it, for the whole process. False where it can't be had: browsers, other processors, an older Node. */
export function askForWideVectors(): boolean {
  const process = globalThis.process
  if (process?.arch !== 'x64' || !(Number.parseInt(process.versions?.v8 ?? '', 10) >= FIRST_V8)) {
    return false
  }
  if (process.platform === 'linux' && !/\bavx2\b/.test(cpuFlags())) return false
  process.getBuiltinModule('node:v8').setFlagsFromString('--experimental-wasm-revectorize')
  return true
}

function cpuFlags(): string {
  try {
    return process.getBuiltinModule('node:fs').readFileSync('/proc/cpuinfo', 'utf8')
  } catch {
    return ''
  }
}
