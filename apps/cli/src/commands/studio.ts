/** lowbit studio */

import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { LowbitError } from '@lowbit/core'
import { DEMO_MODEL } from '@lowbit/demo-model'
import type { Command } from 'commander'
import { wholeNumber } from '../flags/values.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { serveStudio } from '../studio/server.ts'
import { paint } from '../terminal/style.ts'

interface Flags {
  readonly port: number
  readonly open: boolean
}

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .argument('[folders...]', 'folders of models that the page offers')
    .option(
      '--port <n>',
      'where it listens; 0 takes any port that is free',
      wholeNumber(0, 65535),
      4747,
    )
    .option('--no-open', 'only print the address')
    .option('--json', 'print one JSON object on standard output and nothing else')
    .action((folders: string[], flags: Flags) => run((session) => studio(folders, flags, session)))
}

async function studio(folders: readonly string[], flags: Flags, session: Session): Promise<void> {
  const site = {
    page: pageFolder(),
    demo: fileURLToPath(DEMO_MODEL.folder),
    models: await namedFolders(folders),
  }
  const server = await serveStudio(site, flags.port).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'EADDRINUSE' && cause.code !== 'EACCES') throw cause
    const why = cause.code === 'EACCES' ? 'may not be used' : 'is taken'
    throw new LowbitError(
      'port-taken',
      `port ${flags.port} ${why}; choose another with --port, or any that is free with --port 0`,
      { option: 'port', cause },
    )
  })
  const address = `http://localhost:${(server.address() as AddressInfo).port}/`
  session.result({ address, models: [...site.models.keys()] })
  session.print(
    `\n  ${paint('bold', 'lowbit studio')} is at ${paint('bold', address)}\n  Ctrl-C ends it.\n\n`,
  )
  session.onStop('the studio is closed; finished work stays in the browser’s storage')
  if (flags.open) {
    const { default: open } = await import('open')
    // A machine without a browser still has the address.
    await open(address).catch(() => {})
  }
  await new Promise<void>((resolve) => {
    session.signal.addEventListener('abort', () => resolve())
  })
  server.close()
  server.closeAllConnections()
}

/** The built page: of the package, or of the checkout. */
function pageFolder(): string {
  const require = createRequire(import.meta.url)
  const page = path.join(path.dirname(require.resolve('@lowbit/studio/package.json')), 'dist')
  if (existsSync(path.join(page, 'index.html'))) return page
  throw new LowbitError(
    'not-built',
    'the studio’s page is not built; in a checkout `npm run studio` builds and serves it',
    { file: page },
  )
}

async function namedFolders(folders: readonly string[]): Promise<Map<string, string>> {
  const models = new Map<string, string>()
  for (const folder of folders) {
    const place = path.resolve(folder)
    const found = await stat(path.join(place, 'config.json')).catch(() => undefined)
    if (!found?.isFile()) {
      throw new LowbitError('not-found', `${folder} is no model: it has no config.json`, {
        file: folder,
      })
    }
    const base = path.basename(place)
    let name = base
    for (let i = 2; models.has(name); i++) name = `${base} (${i})`
    models.set(name, place)
  }
  return models
}
