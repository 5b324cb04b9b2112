/** What a person does in the studio. */

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { unzipSync } from 'fflate'
import type { Page } from 'playwright-core'
import { temporaryFolder } from './temporary.ts'

const PATIENCE = 300_000
/** Milliseconds between lines of progress. */
const EVERY = 60_000

export async function openDemo(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Use the bundled demo' }).click()
  await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
}

export async function writeRecipe(page: Page, yaml: string): Promise<void> {
  await step(page, 'Recipe')
  await page.getByRole('textbox', { name: 'As YAML' }).fill(yaml)
}

export async function step(page: Page, name: string): Promise<void> {
  await page.getByRole('tab', { name }).click()
}

export async function start(page: Page, name: string, device?: 'webgpu'): Promise<void> {
  await step(page, 'Run')
  await page.getByLabel('name of the result').fill(name)
  if (device) await page.getByRole('radio', { name: /graphics card/ }).check()
  await page.getByRole('button', { name: /^Quantize / }).click()
}

export async function finished(page: Page, patience = PATIENCE): Promise<void> {
  const done = page.getByRole('heading', { name: 'See what it did' })
  const wrong = page.locator('.note.bad')
  // A page that was closed meanwhile has nothing to say.
  const telling = setInterval(() => void tellProgress(page).catch(() => undefined), EVERY)
  try {
    await done.or(wrong).first().waitFor({ timeout: patience })
  } finally {
    clearInterval(telling)
  }
  if (await wrong.isVisible()) throw new Error((await wrong.textContent()) ?? '')
}

/** What the page's own progress bar says, for whoever waits for hours. */
async function tellProgress(page: Page): Promise<void> {
  const parts = await page.locator('.progress p span').allTextContents()
  if (parts.length > 0) console.error(parts.map((part) => part.trim()).join(' '))
}

export async function errorShown(page: Page): Promise<string> {
  const note = page.locator('.note.bad')
  await note.waitFor({ timeout: PATIENCE })
  return (await note.textContent()) ?? ''
}

/** The result as one archive, unpacked; the folder lasts as long as the process. */
export async function takeArchive(page: Page): Promise<string> {
  await step(page, 'Take')
  const [download] = await Promise.all([
    page.waitForEvent('download', { timeout: PATIENCE }),
    page.getByRole('button', { name: 'Download as one archive' }).click(),
  ])
  const place = temporaryFolder('taken')
  for (const [name, bytes] of Object.entries(unzipSync(readFileSync(await download.path())))) {
    writeFileSync(path.join(place, path.basename(name)), bytes)
  }
  return place
}

/** What Measure says: the quantized model's perplexity. */
export async function measure(page: Page, windows: number): Promise<number> {
  await step(page, 'See')
  await page.getByLabel('Windows').fill(String(windows))
  await page.getByRole('button', { name: 'Measure' }).click()
  const cell = page
    .getByRole('row', { name: /^quantized/ })
    .getByRole('cell')
    .first()
  await cell.waitFor({ timeout: PATIENCE })
  return Number(await cell.textContent())
}
