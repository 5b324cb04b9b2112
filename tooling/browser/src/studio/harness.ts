/** What the checks of the studio share. */

import { strict as assert } from 'node:assert'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { quantizeInNode } from './site.ts'

export interface StudioContext {
  readonly executable: string
  readonly browser: Browser
  /** Of `lowbit studio`. */
  readonly url: string
  /** Where screenshots go. */
  readonly pictures: string
}

export interface StudioCheck {
  readonly name: string
  /** What it gives, if anything, is printed behind its name. */
  run(context: StudioContext): Promise<unknown>
}

export const SMALL = { samples: 4, length: 256 }
export const recipe = (rule: string, { samples, length } = SMALL): string =>
  `rules:\n  - ${rule}\ncalibration: { samples: ${samples}, length: ${length} }\n`
export const inNode = (args: readonly string[], { samples, length } = SMALL): string =>
  quantizeInNode('demo', [...args, '--samples', `${samples}`, '--length', `${length}`])

/** A page in a profile of its own; what it complains about is an error. */
export async function visit(
  browser: Browser,
  url: string,
  options: Parameters<Browser['newContext']>[0] = {},
): Promise<{ page: Page; profile: BrowserContext; complaints: string[] }> {
  const profile = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await profile.newPage()
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  await page.goto(url)
  await page.getByText(/WASM: \d/).waitFor()
  return { page, profile, complaints }
}

const weights = (folder: string): Buffer => readFileSync(path.join(folder, 'model.safetensors'))

export const sameBytes = (taken: string, expected: string): boolean =>
  weights(taken).equals(weights(expected))

export function sameWeights(taken: string, expected: string): void {
  assert.ok(sameBytes(taken, expected), 'the weights are not those that Node makes')
}
