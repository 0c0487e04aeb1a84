// node .ci/count.js <vitest's json report> <exit code of the tests> [failed step]... : the closing line of .ci/run.
import fs from 'node:fs';

const [report, testsExit, ...steps] = process.argv.slice(2);
let passed = 0;
const failures = steps.map((step) => `step: ${step}`);
if (fs.existsSync(report)) {
  const { testResults } = JSON.parse(fs.readFileSync(report, 'utf8'));
  for (const file of testResults) {
    const tests = file.assertionResults;
    passed += tests.filter((test) => test.status === 'passed').length;
    failures.push(
      ...tests
        .filter((test) => test.status !== 'passed')
        .map((test) => `${test.status}: ${file.name}: ${test.fullName}`),
    );
    // A file that does not load, or fails around its tests, has no failed test to show for it.
    const told = tests.some((test) => test.status !== 'passed');
    if (file.status !== 'passed' && !told) failures.push(`file: ${file.name}: ${file.message ?? ''}`);
  }
  if (passed === 0) failures.push('no test has passed');
} else {
  failures.push('there is no report of the tests');
}
if (testsExit !== '0' && failures.length === 0) failures.push(`npm ci && npm test ended with ${testsExit}`);
for (const failure of failures) console.log(failure);
console.log(`${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length === 0 ? 0 : 1;
