/**
 * What a user would install: every public package is built and packed, publint and arethetypeswrong look
 * at the tarball, all tarballs are installed together in an empty folder, and the CLI runs there.
 */

import { execFileSync } from 'node:child_process'
import {
  existsSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')
const bin = (name: string): string => path.join(import.meta.dirname, 'node_modules/.bin', name)
const MOST_INSTALLED_MB = 40

interface Manifest {
  name: string
  private?: boolean
}

const run = (command: string, args: readonly string[], cwd: string): string => {
  try {
    return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: 'pipe', maxBuffer: 2 ** 26 })
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }
    console.error(`${command} ${args.join(' ')} failed in ${cwd}\n${stdout ?? ''}${stderr ?? ''}`)
    process.exit(1)
  }
}

const pnpm = (args: readonly string[], cwd = root): string =>
  run('npx', ['-y', 'pnpm@12.21.0', ...args], cwd)

const place = mkdtempSync(path.join(tmpdir(), 'lowbit-packed-'))
console.log('building …')
pnpm(['exec', 'turbo', 'run', 'build', '--output-logs=errors-only'])

const tarballs = new Map<string, string>()
for (const file of globSync(['packages/*/package.json', 'apps/*/package.json'], { cwd: root })) {
  const folder = path.join(root, path.dirname(file))
  const manifest = JSON.parse(readFileSync(path.join(root, file), 'utf8')) as Manifest
  if (manifest.private) continue
  const before = new Set(globSync('*.tgz', { cwd: place }))
  pnpm(['pack', '--pack-destination', place], folder)
  const made = globSync('*.tgz', { cwd: place }).find((name) => !before.has(name))
  if (!made) throw new Error(`${manifest.name} was not packed`)
  const tarball = path.join(place, made)
  tarballs.set(manifest.name, tarball)
  run(bin('publint'), ['run', tarball, '--strict'], folder)
  // Packages are ESM only: resolution by CommonJS is no concern.
  if (manifest.name !== 'lowbit') run(bin('attw'), [tarball, '--profile', 'esm-only'], folder)
  console.log(
    `${manifest.name.padEnd(24)} ${(statSync(tarball).size / 1e3).toFixed(0).padStart(7)} kB`,
  )
}

console.log('installing the tarballs in an empty folder …')
const user = mkdtempSync(path.join(tmpdir(), 'lowbit-user-'))
const overrides = Object.fromEntries([...tarballs].map(([name, file]) => [name, `file:${file}`]))
writeFileSync(
  path.join(user, 'package.json'),
  JSON.stringify({
    name: 'user',
    private: true,
    type: 'module',
    dependencies: overrides,
    overrides,
  }),
)
run('npm', ['install', '--no-audit', '--no-fund', '--omit=dev', '--ignore-scripts'], user)
for (const name of ['vitest', 'fast-check']) {
  if (!existsSync(path.join(user, 'node_modules', name))) continue
  console.error(`${name} was installed with the CLI: it is for tests alone`)
  process.exit(1)
}
const megabytes = Number(run('du', ['-sm', 'node_modules'], user).split('\t')[0])
console.log(`installed: ${megabytes} MB`)
const out = run(
  process.execPath,
  [
    'node_modules/lowbit/dist/main.js',
    'quantize',
    'demo',
    '--method',
    'rtn',
    '--bits',
    '4',
    '--out',
    'small',
    '--json',
  ],
  user,
)
const { bitsPerWeight } = JSON.parse(out) as { bitsPerWeight: number }
const text = run(
  process.execPath,
  [
    'node_modules/lowbit/dist/main.js',
    'generate',
    'small',
    'And it came to pass',
    '--max-tokens',
    '8',
    '--json',
  ],
  user,
)
console.log(
  `the installed CLI quantized the demo to ${bitsPerWeight.toFixed(3)} bits and says: ${JSON.parse(text).text}`,
)
rmSync(place, { recursive: true })
rmSync(user, { recursive: true })
if (megabytes > MOST_INSTALLED_MB) {
  console.error(`that is more than ${MOST_INSTALLED_MB} MB`)
  process.exit(1)
}
