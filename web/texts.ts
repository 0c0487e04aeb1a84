import { Temporal } from 'temporal-polyfill';

export type Language = 'ja' | 'en';

const ja = {
  otherLanguage: 'English',
  questions: 'お問い合わせ',
  problem: 'エラー',
  askTitle: 'ご本人の確認',
  askText: 'ご請求内容を表示する前に、お客様番号の下4桁を確認します。',
  askLabel: 'お客様番号の下4桁',
  askHint: 'お客様番号は、検針票や以前のご請求書に記載されています。',
  askButton: '確認する',
  askWrong: 'お客様番号と一致しません。もう一度ご確認ください。',
  askCooling: (time: string) =>
    `続けて一致しなかったため、この確認を一時的に止めています。${time}以降にもう一度お試しください。`,
  coolingTitle: '確認を一時的に止めています',
  freshLinkText:
    'お急ぎのときは、ご登録の携帯電話番号へ新しいリンクをSMSでお送りします。新しいリンクでは、すぐに確認いただけます。',
  freshLinkButton: '新しいリンクを送る',
  linkSentTitle: '新しいリンクをお送りします',
  linkSentText: (hours: string) =>
    `ご登録の携帯電話番号へSMSでお送りします。届くまで十数分かかることがあります(送信時間 ${hours})。この画面は閉じていただけます。`,
  linkEnoughTitle: '新しいリンクはすでにお送りしています',
  linkEnoughText: (merchant: string) =>
    `届いたSMSの中でいちばん新しいリンクを開いてください。届かないときは、${merchant}へお問い合わせください。`,
  linkNotPossibleTitle: 'SMSをお送りできません',
  linkNotPossibleText: (merchant: string) => `お支払い方法は、${merchant}へお問い合わせください。`,
  notMine: 'このSMSに心当たりがない(自分宛てではない)',
  notMineTitle: 'ご自分宛てではないSMSですか',
  notMineText: (merchant: string) =>
    `${merchant}からのSMSが、別の方の電話に届いたことをお知らせいただけます。`,
  notMineList: (merchant: string) => [
    '届いたリンクは使えなくなります。',
    'この請求先について、この電話番号へSMSをお送りしません。',
    `${merchant}へ、別の方に届いたことを伝えます。`,
    'お名前や電話番号を入力する必要はありません。',
  ],
  notMineButton: '自分宛てではないと知らせる',
  notMineBack: '戻る(自分宛てです)',
  givenBackTitle: 'お知らせいただき、ありがとうございました',
  givenBackText: (merchant: string) =>
    `このリンクは使えなくなりました。この請求先について、この電話番号へSMSをお送りしません。まちがえて押されたときは、${merchant}へご連絡ください。`,
  stop: '自動払いをやめる',
  stopTitle: '自動払いをやめますか',
  stopList: [
    '次のご請求からは、SMSのリンクからお支払いいただきます。',
    'すでに手続きが始まっているお支払いは、そのまま行われます。',
    'あとからもう一度、お支払いの画面でお申し込みいただけます。',
  ],
  stopButton: '自動払いをやめる',
  stopBack: '戻る(続ける)',
  stoppedTitle: '自動払いを終了しました',
  stoppedText: (merchant: string) =>
    `次のご請求からは、SMSのリンクからお支払いいただきます。終了したことは${merchant}へ伝えます。`,
  anotherCard: '自動払いのカードを変える',
  cardTitle: '自動払いのカードを変える',
  cardOnFile: (card: string) => `今ご登録のカード: ${card}`,
  cardEnd: (brand: string, lastFour: string) => `${brand} 末尾 ${lastFour}`,
  cardText: '次に開く決済代行会社のページで、新しいカードを登録します。いまお支払いはありません。',
  cardList: [
    '登録が終わると、その後の自動払いは新しいカードで行います。',
    'すでに手続きが始まっているお支払いは、前のカードで行われます。',
    '登録できなかったときや途中でやめたときは、何も変わりません。',
    'すでにお支払いページをお送りしたご請求は、そのページでお支払いください。',
  ],
  cardCovers: (merchant: string) => `${merchant}からのご請求が対象です。`,
  cardAgree: '上の条件に同意のうえ、進んでください。',
  cardButton: '同意してカードを登録する',
  cardGoOn: '登録の手続きが途中です。決済代行会社のページで続けてください。',
  cardBack: '戻る(変えない)',
  cardGatewayDown: (time: string) =>
    `ただいま決済代行会社につながりません。カードは変わっていません。${time}以降に、もう一度お試しください。`,
  cardChangedTitle: '自動払いのカードを変えました',
  cardChangedText: (merchant: string) =>
    `これからの自動払いは、新しいカードで行います。変更したことは${merchant}へ伝えます。`,
  cardChangedOpenBill:
    '今回のご請求はまだお支払いいただいていません。お支払いページから、すぐにお支払いいただけます。',
  cardNotChangedTitle: 'カードは変わっていません',
  cardNotChangedText:
    '新しいカードは登録されませんでした。これまでのカードがまだ使える場合、自動払いはそのまま続きます。代金はいただいていません。',
  cardUnfinishedTitle: 'カードの登録はまだ終わっていません',
  cardUnfinishedText: '決済代行会社のページに戻って続けることができます。',
  cardWaitingTitle: 'カードの登録を確認しています',
  cardWaitingText:
    '結果がわかるまで、前のカードのままです。結果は、ふつう数分以内に下のボタンで確認できます。',
  cardAgain: 'カードの登録へ',
  billTitle: 'ご請求額',
  dueOn: (date: string) => `お支払期限 ${date}`,
  overdue: (date: string) => `お支払期限 ${date}(過ぎています)`,
  customerNumber: 'お客様番号',
  customerNumberEnd: (end: string) => `末尾 ${end}`,
  period: 'ご請求期間',
  usage: 'ご使用期間',
  usageFromTo: (from: string, to: string) => `${from}〜${to}`,
  description: '内容',
  billingNumber: '請求番号',
  tax: '消費税の内訳',
  taxItem: '項目',
  taxable: '対象額(税抜)',
  taxAmount: '消費税',
  taxRate: (rate: number) => (rate === 0 ? '対象外・非課税' : `${rate}%対象`),
  registration: '登録番号',
  enrol: '次回から自動で支払う',
  enrolText: '今回使うカードで、次のご請求から自動でお支払いします。SMSでのお支払いは不要になります。',
  changeCard: '今後の自動払いをこのカードに変える',
  changeCardText: '今ご登録のカードに代えて、今回使うカードで次のご請求から自動でお支払いします。',
  enrolAccount: (merchant: string, account: string) => `対象: ${merchant} ${account}`,
  terms: '自動払いの条件',
  termsList: (merchant: string, day: string, contact: string | null, byLink: boolean) => [
    `${merchant}からの次回以降のご請求が対象です。今回のご請求は、この画面でお支払いいただきます。`,
    `ご請求のたびに、その請求額を${day}にカードへ請求します。金額は毎回変わることがあります。`,
    'カード番号は決済代行会社が安全に保管します。このサイトには保存されません。',
    'カードで支払えなかったときは、日をおいてもう一度請求するか、SMSでお支払いページをお送りします。',
    `自動払いはいつでもやめられます。${byLink ? '届いたSMSのリンクを開いて「自動払いをやめる」を選ぶか、' : ''}${contact === null ? `${merchant}へ` : `お電話(${contact})で`}ご連絡ください。`,
  ],
  debitOnDueDate: 'お支払期限の日(銀行の休業日は翌営業日)',
  debitOnDay: (day: number) => `毎月${day}日(銀行の休業日は翌営業日)`,
  pay: (amount: string) => `カードで${amount}を支払う`,
  secure:
    'カード番号は、次に開く決済代行会社のページで入力します。本人認証(3Dセキュア)を行うことがあります。',
  inPayment: 'お支払いの手続きが途中です。決済代行会社のページで続けてください。',
  inPaymentEnrol: 'このお支払いでは「次回から自動で支払う」が選ばれています。',
  inPaymentNoEnrol: 'このお支払いでは自動払いは選ばれていません。',
  inPaymentStop: 'やめるときや選び直すときは、決済代行会社のページで「やめて戻る」を選んでください。',
  goOn: '支払いを続ける',
  paidTitle: 'お支払いが完了しました',
  paidText: 'ありがとうございました。この画面は閉じていただけます。',
  receipt: '領収書を見る',
  receiptOrAutomatic: '領収書・自動払いの手続き',
  receiptTitle: '領収書',
  receiptText: '下記の金額を領収いたしました。',
  receiptHint: '印刷や保存は、ブラウザーのメニューの「印刷」または「共有」から行えます。',
  receiptIssuer: '発行者',
  receiptMethod: 'お支払い方法',
  paidBy: {
    card: 'クレジットカード',
    barcode: 'コンビニ(バーコード)',
    wallet: 'ウォレット',
    debit: '口座振替',
  } as Record<string, string>,
  receiptDate: 'お支払日',
  receiptPaidBack: 'うちご返金額(手続き中を含む)',
  paidBefore: 'このご請求はお支払い済みです',
  paidOn: (date: string) => `お支払日 ${date}`,
  enrolled: '次のご請求からは、自動でお支払いします。',
  waitingTitle: 'お支払いを確認しています',
  waitingText:
    '結果がわかるまで、もう一度お支払いいただくことはできません。二重のお支払いを防ぐためです。結果は、ふつう数分以内に下のボタンで確認できます。',
  paidAtShopTitle: 'コンビニでのお支払いを確認しました',
  paidAtShopText:
    'お店からのお支払いの連絡を受け取りました。確定まで数日かかることがあります。もう一度お支払いいただく必要はありません。',
  unfinishedTitle: 'お支払いはまだ終わっていません',
  unfinishedText: 'お支払いのページに戻って続けることができます。',
  notPaidTitle: 'お支払いできませんでした',
  notPaidText: '代金はいただいていません。ご請求はそのまま残っています。',
  notPaidTodo: [
    'カード番号、有効期限、セキュリティコードをお確かめのうえ、もう一度お試しください。',
    '別のカードでもお支払いいただけます。',
    '利用限度額や本人認証については、カード会社へお問い合わせください。理由はこのサイトには知らされません。',
  ],
  notPaidByWalletTodo: [
    'スマホ決済アプリの残高や利用限度額をお確かめのうえ、もう一度お試しください。',
    'カードなど、ほかの方法でもお支払いいただけます。',
    '理由は決済アプリの会社へお問い合わせください。このサイトには知らされません。',
  ],
  gatewayDown: (time: string) =>
    `ただいま決済代行会社につながりません。代金はいただいていません。${time}以降に、このページをもう一度開いてお支払いください。`,
  cancelledTitle: 'このご請求は取り消されました',
  cancelledText: 'お支払いの必要はありません。',
  returnedTitle: 'このページでのお支払いは終了しました',
  returnedText: (merchant: string) => `お支払い方法は、${merchant}からの別のご案内をご覧ください。`,
  expiredTitle: 'このリンクの期限が切れています',
  expiredText: (merchant: string) => `お支払い方法は、${merchant}へお問い合わせください。`,
  unknownTitle: 'ページを開けません',
  unknownText:
    'SMSのリンクをもう一度開いてください。それでも開けないときは、ご請求元へお問い合わせください。',
  restingTitle: 'ただいまお支払いの受付を止めています',
  restingText:
    'システムの確認を行っています。代金が二重に請求されることはありません。時間をおいて、SMSのリンクをもう一度開いてください。',
  busyTitle: 'ただいま混み合っています',
  busyText: '少し待ってから、もう一度開いてください。代金が二重に請求されることはありません。',
  errorTitle: 'ページを表示できませんでした',
  errorText:
    'こちらの不具合で、処理を終えられませんでした。SMSのリンクをもう一度開くと、お支払いの状況を確認できます。代金が二重に請求されることはありません。',
  genuine: '本物のSMSの見分け方',
  genuineTitle: '本物のSMSの見分け方',
  genuineText:
    'お支払いのご案内のSMSのリンクは、必ず次の文字で始まります。1文字でも違うリンクは開かないでください。',
  genuineDo: 'このサイトでお願いすること',
  genuineDoList: (gateway: string) => [
    'SMSには、ご契約の会社の名前が入っています。リンクは多くても1つです。お名前は書きません。金額を書くのは、自動払いの前のお知らせだけで、そこにリンクはありません。',
    'リンクを開くと、お客様番号の下4桁をうかがうことがあります。',
    gateway === ''
      ? 'カード番号は、決済代行会社のページだけで入力します。'
      : `カード番号は、決済代行会社のページ(${gateway})だけで入力します。`,
  ],
  genuineDoNot: '決してお願いしないこと',
  genuineDoNotList: [
    'SMSへの返信や電話で、カード番号、暗証番号、パスワードをうかがうこと',
    'アプリのインストールや、個人の口座への振込、プリペイドカードの購入',
    '「今日中に供給を止める」といったSMSで、お支払いを急がせること',
  ],
  genuineDoubt: '不審に思われたとき',
  genuineDoubtText:
    'リンクを開かずに、検針票や契約書に書かれている電話番号で、ご契約の会社へお問い合わせください。SMSに書かれた番号にはかけないでください。',
  back: 'お支払いページへ',
  reload: '結果を確認する',
};

type Words = typeof ja;

const en: Words = {
  otherLanguage: '日本語',
  questions: 'Questions',
  problem: 'Error',
  askTitle: 'Please confirm it is you',
  askText: 'Before we show the bill, please give the last four characters of your customer number.',
  askLabel: 'Last four of your customer number',
  askHint: 'You find the customer number on your meter slip or on earlier bills.',
  askButton: 'Continue',
  askWrong: 'This does not match the customer number. Please check it.',
  askCooling: (time) =>
    `There were several wrong answers in a row, so this check rests for a while. Please try again after ${time}.`,
  coolingTitle: 'This check is resting',
  freshLinkText:
    'If you cannot wait, we send a new link by SMS to the mobile number that we have for you. With the new link you can go on at once.',
  freshLinkButton: 'Send me a new link',
  linkSentTitle: 'A new link is on its way',
  linkSentText: (hours) =>
    `It goes by SMS to the mobile number that we have for you and may take some fifteen minutes (SMS are sent ${hours}). You can close this page.`,
  linkEnoughTitle: 'We have sent a new link already',
  linkEnoughText: (merchant) =>
    `Please open the newest link among your SMS. If none has come, please contact ${merchant}.`,
  linkNotPossibleTitle: 'We cannot send an SMS',
  linkNotPossibleText: (merchant) => `Please ask ${merchant} how to pay.`,
  notMine: 'This SMS is not for me',
  notMineTitle: 'Is this SMS not for you?',
  notMineText: (merchant) => `You can tell us that an SMS of ${merchant} has reached somebody else’s phone.`,
  notMineList: (merchant) => [
    'The link that you got stops working.',
    'We send no more SMS about this customer to this phone.',
    `We tell ${merchant} that it reached somebody else.`,
    'You need not give your name or number.',
  ],
  notMineButton: 'Tell them it is not for me',
  notMineBack: 'Back, it is for me',
  givenBackTitle: 'Thank you for telling us',
  givenBackText: (merchant) =>
    `This link does not work any more, and we send no more SMS about this customer to this phone. If you pressed by mistake, please contact ${merchant}.`,
  stop: 'Stop automatic payment',
  stopTitle: 'Stop automatic payment?',
  stopList: [
    'From your next bill on, you pay by the link in an SMS.',
    'A payment that is already under way is made.',
    'You can ask for automatic payment again whenever you pay a bill.',
  ],
  stopButton: 'Stop automatic payment',
  stopBack: 'Back, keep it',
  stoppedTitle: 'Automatic payment has ended',
  stoppedText: (merchant) =>
    `From your next bill on, you pay by the link in an SMS. ${merchant} is told that it has ended.`,
  anotherCard: 'Use another card for automatic payment',
  cardTitle: 'Use another card for automatic payment',
  cardOnFile: (card) => `Card on file: ${card}`,
  cardEnd: (brand, lastFour) => `${brand} ending in ${lastFour}`,
  cardText: 'You give the new card on the payment provider’s page, which opens next. Nothing is paid now.',
  cardList: [
    'Once it is kept, automatic payment uses the new card.',
    'A payment that is already under way is made with the card before it.',
    'If it cannot be kept, or you stop half way, nothing changes.',
    'A bill that we sent you a payment page for is paid on that page.',
  ],
  cardCovers: (merchant) => `It covers the bills from ${merchant}.`,
  cardAgree: 'By going on you accept the terms above.',
  cardButton: 'Accept and give the new card',
  cardGoOn: 'You have begun already. Please finish it on the payment provider’s page.',
  cardBack: 'Back, keep the card',
  cardGatewayDown: (time) =>
    `The payment provider cannot be reached. Your card was not changed. Please try again after ${time}.`,
  cardChangedTitle: 'Automatic payment uses your new card',
  cardChangedText: (merchant) =>
    `From now on, automatic payment uses the new card. ${merchant} is told of the change.`,
  cardChangedOpenBill: 'This bill has not been paid yet. You can pay it at once on its payment page.',
  cardNotChangedTitle: 'Your card was not changed',
  cardNotChangedText:
    'The new card was not kept, and no money was taken. As long as your former card can be used, automatic payment goes on with it.',
  cardUnfinishedTitle: 'The new card is not kept yet',
  cardUnfinishedText: 'You can go back to the payment provider’s page and finish it.',
  cardWaitingTitle: 'We are checking your new card',
  cardWaitingText:
    'Until the result is known the card before it stays. It is usually known within minutes: please look again with the button below.',
  cardAgain: 'To the new card',
  billTitle: 'Amount to pay',
  dueOn: (date) => `Due ${date}`,
  overdue: (date) => `Was due ${date}`,
  customerNumber: 'Customer number',
  customerNumberEnd: (end) => `ending in ${end}`,
  period: 'Billing period',
  usage: 'Used',
  usageFromTo: (from, to) => `${from} to ${to}`,
  description: 'For',
  billingNumber: 'Bill number',
  tax: 'Consumption tax',
  taxItem: 'Item',
  taxable: 'Before tax',
  taxAmount: 'Tax',
  taxRate: (rate) => (rate === 0 ? 'no tax' : `at ${rate}%`),
  registration: 'Registration number',
  enrol: 'Pay automatically from now on',
  enrolText: 'Your next bills are charged to the card you use now. No more links to open.',
  changeCard: 'Use this card for automatic payment',
  changeCardText: 'Your next bills are charged to the card you use now instead of the one on file.',
  enrolAccount: (merchant, account) => `Covers: ${merchant}, ${account}`,
  terms: 'Terms of automatic payment',
  termsList: (merchant, day, contact, byLink) => [
    `It covers the next bills from ${merchant}. This bill is paid here and now.`,
    `Each bill is charged to your card with its own amount ${day}. The amount may differ each time.`,
    'The payment provider keeps the card number safely. It is never stored on this site.',
    'If the card cannot be charged, we try again some days later or send you a payment page by SMS.',
    `You can stop at any time: ${byLink ? 'open the link in one of our SMS and choose “Stop automatic payment”, or ' : 'please '}${contact === null ? `contact ${merchant}` : `call ${contact}`}.`,
  ],
  debitOnDueDate: 'on its due date (or the next day on which banks are open)',
  debitOnDay: (day) => `on day ${day} of the month (or the next day on which banks are open)`,
  pay: (amount) => `Pay ${amount} by card`,
  secure:
    'You type your card number on the payment provider’s own page, which opens next. It may ask for 3-D Secure.',
  inPayment: 'A payment is under way. Please finish it on the payment provider’s page.',
  inPaymentEnrol: '“Pay automatically from now on” is chosen for this payment.',
  inPaymentNoEnrol: 'Automatic payment is not chosen for this payment.',
  inPaymentStop: 'To stop or choose again, please cancel on the payment provider’s page.',
  goOn: 'Continue to payment',
  paidTitle: 'Thank you, your bill is paid',
  paidText: 'There is nothing more to do. You can close this page.',
  receipt: 'See the receipt',
  receiptOrAutomatic: 'Receipt and automatic payment',
  receiptTitle: 'Receipt',
  receiptText: 'Received with thanks:',
  receiptHint: 'To print or save it, use “Print” or “Share” in the menu of your browser.',
  receiptIssuer: 'Issued by',
  receiptMethod: 'Paid by',
  paidBy: { card: 'credit card', barcode: 'barcode at a shop', wallet: 'wallet', debit: 'bank debit' },
  receiptDate: 'Paid on',
  receiptPaidBack: 'Of this refunded or on its way',
  paidBefore: 'This bill is already paid',
  paidOn: (date) => `Paid on ${date}`,
  enrolled: 'From your next bill on, you pay automatically.',
  waitingTitle: 'We are checking your payment',
  waitingText:
    'Until the result is known this bill cannot be paid again, so that you never pay twice. The result is usually known within minutes: please look again with the button below.',
  paidAtShopTitle: 'The shop has told us of your payment',
  paidAtShopText: 'It becomes certain within some days. You do not need to pay again.',
  unfinishedTitle: 'The payment is not finished',
  unfinishedText: 'You can go back to the payment page and finish it.',
  notPaidTitle: 'The payment did not go through',
  notPaidText: 'No money was taken. The bill is still to be paid.',
  notPaidTodo: [
    'Please check card number, expiry date and security code, and try again.',
    'You can also pay with another card.',
    'About limits and authentication, please ask the company that issued your card. This site is not told the reason.',
  ],
  notPaidByWalletTodo: [
    'Please check the balance and the limit of your wallet, and try again.',
    'You can also pay by card or in another way.',
    'About the reason, please ask the company of your wallet. This site is not told.',
  ],
  gatewayDown: (time) =>
    `The payment provider cannot be reached. No money was taken. Please open this page again and pay after ${time}.`,
  cancelledTitle: 'This bill was cancelled',
  cancelledText: 'You do not have to pay it.',
  returnedTitle: 'This bill can no longer be paid here',
  returnedText: (merchant) => `${merchant} will tell you how to pay it.`,
  expiredTitle: 'This link has expired',
  expiredText: (merchant) => `Please ask ${merchant} how to pay.`,
  unknownTitle: 'This page cannot be opened',
  unknownText:
    'Please open the link in your SMS again. If that does not help, please ask the company that billed you.',
  restingTitle: 'Payment is temporarily not available',
  restingText:
    'Our system is being checked. You will not be charged twice. Please open the link in your SMS again later.',
  busyTitle: 'We are busy right now',
  busyText: 'Please open the page again in a moment. You will not be charged twice.',
  errorTitle: 'This page could not be shown',
  errorText:
    'Something went wrong on our side. Please open the link in your SMS again to see how your payment stands. You will not be charged twice.',
  genuine: 'How to tell a genuine SMS',
  genuineTitle: 'How to tell a genuine SMS',
  genuineText:
    'The link in our SMS always begins with the characters below. If one of them differs, please do not open it.',
  genuineDo: 'What this site asks of you',
  genuineDoList: (gateway) => [
    'The SMS names your utility and has one link at most. It never holds your name, and an amount only where it announces a debit; that one has no link.',
    'The page may ask for the last four characters of your customer number.',
    gateway === ''
      ? 'You type your card number on the payment provider’s page only.'
      : `You type your card number on the payment provider’s page (${gateway}) only.`,
  ],
  genuineDoNot: 'What it never asks of you',
  genuineDoNotList: [
    'card numbers, PINs or passwords by SMS or on the telephone',
    'to install an app, to transfer money to a person, or to buy prepaid cards',
    'to hurry because your supply will be cut today',
  ],
  genuineDoubt: 'If you are in doubt',
  genuineDoubtText:
    'Do not open the link. Call your utility on the number on your meter slip or contract, not on one in the SMS.',
  back: 'To the payment page',
  reload: 'Look again',
};

export const texts: Record<Language, Words> = { ja, en };

/** `toLocaleString` finds its format anew each time. */
const thousands = new Intl.NumberFormat('en-US');

/** 4980 JPY as `4,980円` or `¥4,980`. */
export function money(amount: number, currency: string, language: Language): string {
  if (currency === 'JPY') {
    const digits = thousands.format(amount);
    return language === 'ja' ? `${digits}円` : `¥${digits}`;
  }
  const format = new Intl.NumberFormat(language, { style: 'currency', currency });
  return format.format(amount / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 0));
}

/** `2026年12月10日(木)`, `10 December 2026`. */
export function longDate(date: string, language: Language): string {
  return remembered(`${language} ${date}`, () => {
    const day = Temporal.PlainDate.from(date);
    return language === 'ja'
      ? `${day.year}年${day.month}月${day.day}日(${'月火水木金土日'.charAt(day.dayOfWeek - 1)})`
      : `${day.day} ${day.toLocaleString('en-GB', { month: 'long' })} ${day.year}`;
  });
}

/** `2026年11月分`, `November 2026`. */
export function longMonth(month: string, language: Language): string {
  return remembered(`${language} ${month}`, () => {
    const { year, month: number } = Temporal.PlainYearMonth.from(month);
    if (language === 'ja') return `${year}年${number}月分`;
    return `${Temporal.PlainDate.from(`${month}-01`).toLocaleString('en-GB', { month: 'long' })} ${year}`;
  });
}

/** A month's bills have few days between them. */
const datesInWords = new Map<string, string>();
const datesAtMost = 1_000;

function remembered(key: string, inWords: () => string): string {
  const known = datesInWords.get(key);
  if (known !== undefined) return known;
  if (datesInWords.size >= datesAtMost) datesInWords.clear();
  const words = inWords();
  datesInWords.set(key, words);
  return words;
}

/** `14:05` in the merchant's zone. */
export function clockTime(instant: string, timezone: string): string {
  // Rounded up: at 14:05:30 it must not say 14:05.
  const { hour, minute } = Temporal.Instant.from(instant)
    .toZonedDateTimeISO(timezone)
    .round({ smallestUnit: 'minute', roundingMode: 'ceil' });
  return wallTime(hour * 60 + minute);
}

/** `09:05` for minute 545 of the day. */
export function wallTime(minuteOfDay: number): string {
  const two = (part: number) => String(part).padStart(2, '0');
  return `${two(Math.floor(minuteOfDay / 60))}:${two(minuteOfDay % 60)}`;
}

/** The first language of the browser that the merchant offers, else the merchant's first. */
export function languageFor(acceptLanguage: string | undefined, offered: readonly Language[]): Language {
  const wanted = (acceptLanguage ?? '')
    .slice(0, 200)
    .split(',')
    .map((part) => {
      const [tag = '', ...parameters] = part.trim().toLowerCase().split(';');
      const q = parameters.map((each) => /^\s*q=([01](?:\.\d{1,3})?)$/.exec(each)?.[1]).find((each) => each);
      return { language: tag.split('-')[0] ?? '', weight: q === undefined ? 1 : Number(q) };
    })
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => b.weight - a.weight);
  const found = wanted.map(({ language }) => offered.find((each) => each === language)).find((each) => each);
  return found ?? offered[0] ?? 'ja';
}
